// How many connections the limit on open descriptors (ulimit -n) leaves room for.
#pragma once

#include <cstdint>

namespace attnd::server {

// Raises the process's limit to the most that it may have without asking anybody (RLIMIT_NOFILE's hard limit). Many
// systems start programs with 1,024, for the sake of those that use select().
void TakeAllDescriptors();

// Three quarters of the descriptors that this process may have open, beside 32 for the server itself; at least 1.
std::int64_t ConnectionsForDescriptors();

}  // namespace attnd::server
