#include "schedule/default_threads.h"

#include <sched.h>

#include <algorithm>
#include <cmath>

#include "cgroup/cgroup.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {

int ThreadsFor(int cpus, std::optional<double> limit) {
  const int threads = std::max(1, cpus);
  return limit.has_value() && *limit < threads ? std::max(1, static_cast<int>(std::ceil(*limit))) : threads;
}

int DefaultThreads() {
  cpu_set_t allowed;
  const int cpus = sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  return ThreadsFor(cpus, cgroup::CpuLimit(cgroup::OfThisProcess()));
}

}  // namespace attnd::schedule
