// The limits that control groups set for this process: the tightest of any group on its path, since a group never has
// more than its ancestors. Sources: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and
// scheduler/sched-bwc.rst.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace attnd::cgroup {

// Where the limits are read from.
struct Groups {
  std::string self;                     // the text of /proc/self/cgroup
  std::string root = "/sys/fs/cgroup";  // where the hierarchies are mounted
};

// Those of this process.
Groups OfThisProcess();

// In CPUs (v2 `cpu.max`, v1 `cpu.cfs_quota_us`); nullopt if there is no limit.
std::optional<double> CpuLimit(const Groups& groups);

// In bytes (v2 `memory.max`, v1 `memory.limit_in_bytes`); nullopt if there is no limit. The kernel kills a process that
// exceeds it.
std::optional<std::int64_t> MemoryLimit(const Groups& groups);

}  // namespace attnd::cgroup
