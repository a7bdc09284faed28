// How many connections the limit on open descriptors (ulimit -n) allows.
#pragma once

#include <cstdint>

namespace attnd::server {

// Raises the process's limit to the highest that needs no privilege (RLIMIT_NOFILE's hard limit). Many systems start
// programs with 1,024, for the sake of programs that use select().
void TakeAllDescriptors();

// Three quarters of the descriptors that this process may have open, not counting 32 for the server itself; at least 1.
std::int64_t ConnectionsForDescriptors();

}  // namespace attnd::server
