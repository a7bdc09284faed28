#include <sched.h>

#include <algorithm>
#include <cmath>

#include "cgroup/cgroup.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {

int DefaultThreads() {
  cpu_set_t allowed;
  int threads = 1;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) threads = std::max(1, CPU_COUNT(&allowed));
  if (const auto limit = cgroup::CpuLimit(cgroup::OfThisProcess())) {
    threads = std::min(threads, std::max(1, static_cast<int>(std::ceil(*limit))));
  }
  return threads;
}

}  // namespace attnd::schedule
