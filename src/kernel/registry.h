// The kernels of this build: one source compiled once per instruction set, chosen at run time by what the CPU supports.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace attnd::kernel {

// One build of the kernel: a name and functions. Defined in kernel/kernel.h; immutable, never destroyed.
struct Kernel;

// Every kernel that this CPU can run, best first. Never empty. The first call asks Linux for AMX's registers
// (amx_permission.h).
const std::vector<const Kernel*>& AvailableKernels();

// "x86-64-v4-amx", "x86-64-v4-bf16", "x86-64-v4", "x86-64-v3", "x86-64-v2", "aarch64-bf16" or "aarch64".
std::string_view NameOf(const Kernel& kernel);

// The requested kernel's name: `name`, or if that is empty the environment variable ATTND_KERNEL; empty if neither is
// set.
std::string RequestedKernel(std::string_view name);

// The kernel that RequestedKernel(name) names; the best one if it is empty. Errors: NOT_FOUND for a name that this
// build lacks, FAILED_PRECONDITION for one that this CPU cannot run; the message lists the kernels that it can.
absl::StatusOr<const Kernel*> ChooseKernel(std::string_view name);

}  // namespace attnd::kernel
