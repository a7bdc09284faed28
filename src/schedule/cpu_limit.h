// How many CPUs this process may use.
#pragma once

#include <optional>
#include <string>

namespace attnd::schedule {

// The tightest CPU limit, in CPUs, that any cgroup on the process's path sets (v2 `cpu.max`, v1 `cpu.cfs_quota_us`);
// nullopt if none does. `proc_self_cgroup` is the text of /proc/self/cgroup, `cgroup_root` the folder that stands for
// /sys/fs/cgroup. Source: Linux Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
std::optional<double> CgroupCpuLimit(const std::string& proc_self_cgroup, const std::string& cgroup_root);

}  // namespace attnd::schedule
