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

// What a server without calls takes: code, threads, buffers, the embedded models.
inline constexpr std::int64_t kIdleBytes = std::int64_t{32} << 20;

// Of this process: the cgroup's limit, or the machine's memory if that is less.
AllowedMemory AllowedToThisProcess();

// "memory", in force if each limit of bytes in flight, of models, or shared, and what the server takes without calls,
// fits into `allowed`, and one peer can have as much in flight as the largest request is allowed to take. A server that
// takes more is killed by the kernel. The limits of `options` are fitted (fitted_limits.h).
v1::Setting MemorySetting(const Options& options, const AllowedMemory& allowed);

}  // namespace attnd::server
