// Settings that the server's speed depends on, and whether they are in force in this process. The log and GetServerInfo
// report them; the server serves in any case.
#pragma once

#include <string>

#include "attnd/v1/server.pb.h"
#include "kernel/kernel.h"

namespace attnd::server {

// A setting whose effect this process can observe.
v1::Setting ObservedSetting(const std::string& name, bool in_force, const std::string& detail);

// A setting that was requested from a library, which may not follow.
v1::Setting RequestedSetting(const std::string& name, const std::string& detail);

// The kernel in use. It is in force if it is the one that --kernel or the environment variable ATTND_KERNEL names or,
// if neither names one, the best that this CPU runs.
v1::Setting KernelSetting(const kernel::Kernel& in_use, const std::string& asked_for);

// "allocator: in force (tcmalloc 2.10)", for the log.
std::string InWords(const v1::Setting& setting);

}  // namespace attnd::server
