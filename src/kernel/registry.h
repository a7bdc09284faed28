// The kernels of this build: one source compiled once per instruction set, chosen at run time by what the CPU has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace attnd::kernel {

// One build of the kernel: a name and functions. Defined in kernel/kernel.h; immutable, lives for ever.
struct Kernel;

// Every kernel that this CPU can run, best first. Never empty. The first call asks Linux for AMX's registers
// (amx_permission.h).
const std::vector<const Kernel*>& AvailableKernels();

// "x86-64-v4-amx", "x86-64-v4-bf16", "x86-64-v4", "x86-64-v3", "x86-64-v2" or "aarch64".
std::string_view NameOf(const Kernel& kernel);

// The kernel that is asked for by name: `name`, or if that is empty the environment variable ATTND_KERNEL; empty if
// neither names one.
std::string RequestedKernel(std::string_view name);

// The kernel that RequestedKernel(name) names; the best if it names none. Errors:
// NOT_FOUND for a name that this build lacks, FAILED_PRECONDITION for one that this CPU cannot run; the message lists
// those that it can.
absl::StatusOr<const Kernel*> ChooseKernel(std::string_view name);

}  // namespace attnd::kernel
