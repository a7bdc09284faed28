// The default number of threads, from what limits it.
#pragma once

#include <optional>

namespace attnd::schedule {

// `cpus` that the process may run on, but at most the cgroup's limit, in CPUs, rounded up; at least 1.
int ThreadsFor(int cpus, std::optional<double> limit);

}  // namespace attnd::schedule
