// Whether the server's limits fit into the memory that it may have.
#pragma once

#include <cstdint>
#include <string>

#include "attnd/v1/server.pb.h"
#include "server/config/options.h"

namespace attnd::server {

// The most memory that a process may have, and what says so.
struct AllowedMemory {
  std::int64_t bytes = 0;
  std::string source;  // "the cgroup's limit", "the machine's memory"
};

// Of this process: the cgroup's limit, or the machine's memory if that is less.
AllowedMemory AllowedToThisProcess();

// "memory", in force if each limit of bytes in flight or shared, and what the server takes without calls, fits into
// `allowed`. A server that takes more is killed by the kernel.
v1::Setting MemorySetting(const Options& options, const AllowedMemory& allowed);

}  // namespace attnd::server
