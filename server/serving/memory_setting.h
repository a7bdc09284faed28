// Reports whether the server's limits fit into the memory that it may have.
#pragma once

#include <cstdint>
#include <string>

#include "attnd/v1/server.pb.h"
#include "server/config/options.h"

namespace attnd::server {

// The most memory that a process may have, and what sets this limit.
struct AllowedMemory {
  std::int64_t bytes = 0;
  std::string source;  // "the cgroup's limit", "the machine's memory"
};

// The memory of a server without calls: code, threads, buffers, the embedded models.
inline constexpr std::int64_t kIdleBytes = std::int64_t{32} << 20;

// For this process: the cgroup's limit, or the machine's memory if that is less.
AllowedMemory AllowedToThisProcess();

// The setting "memory". It is in force if each limit (bytes in flight, request, result, models, shared memory) fits
// into `allowed` together with kIdleBytes, and if one peer can have as much in flight as the largest request and the
// largest result. Otherwise the operating system may kill the server, or such requests are always refused. The limits
// of `options` must be fitted (fitted_limits.h).
v1::Setting MemorySetting(const Options& options, const AllowedMemory& allowed);

}  // namespace attnd::server
