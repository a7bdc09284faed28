// Checks that the process may have the threads that a server needs. Without them gRPC hangs or aborts.
#pragma once

#include "absl/status/status.h"
#include "server/config/options.h"

namespace attnd::server {

// Number of threads that compute: options.threads or, if that is 0, schedule::DefaultThreads().
int ComputingThreads(const Options& options);

// Upper bound of the threads that a server with these options starts, including gRPC's.
int ThreadsOf(const Options& options);

// Starts this many threads at once and ends them again. Errors: RESOURCE_EXHAUSTED saying how many could be started.
absl::Status CheckThreads(int threads);

}  // namespace attnd::server
