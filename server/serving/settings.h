// What the server's speed rests on, and whether this process shows it in force: reported by the log and by
// GetServerInfo, and never a reason not to serve.
#pragma once

#include <string>

#include "attnd/v1/server.pb.h"
#include "kernel/kernel.h"

namespace attnd::server {

// A setting whose effect was looked for in this process.
v1::Setting ObservedSetting(const std::string& name, bool in_force, const std::string& detail);

// A setting that a library was asked for.
v1::Setting RequestedSetting(const std::string& name, const std::string& detail);

// The kernel in use: in force if it is the one that --kernel or the environment's ATTND_KERNEL named. Where neither
// names one, in force if it is the best that this CPU runs.
v1::Setting KernelSetting(const kernel::Kernel& in_use, const std::string& asked_for);

// "allocator: in force (tcmalloc 2.10)", for the log.
std::string InWords(const v1::Setting& setting);

}  // namespace attnd::server
