#include "schedule/cpu_limit.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {
namespace {

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// quota / period, or nullopt if either is missing, "max" or not positive.
std::optional<double> Ratio(const std::string& quota, const std::string& period) {
  double q = 0, p = 0;
  if (!absl::SimpleAtod(quota, &q) || !absl::SimpleAtod(period, &p) || q <= 0 || p <= 0) return std::nullopt;
  return q / p;
}

// The limit that one folder sets.
std::optional<double> LimitV2(const std::string& folder) {
  const auto text = ReadFile(absl::StrCat(folder, "/cpu.max"));
  if (!text) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  if (words.size() != 2) return std::nullopt;
  return Ratio(words[0], words[1]);
}

std::optional<double> LimitV1(const std::string& folder) {
  const auto quota = ReadFile(absl::StrCat(folder, "/cpu.cfs_quota_us"));
  const auto period = ReadFile(absl::StrCat(folder, "/cpu.cfs_period_us"));
  if (!quota || !period) return std::nullopt;
  return Ratio(*quota, *period);
}

// The tightest limit from `path` up to the mount's root. A path that the mount does not show (a container that sees the
// host's path, say) still leaves the root's own limit.
template <typename LimitOf>
std::optional<double> TightestUpwards(const std::string& mount, std::string path, LimitOf limit_of) {
  std::optional<double> tightest;
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    if (const auto limit = limit_of(absl::StrCat(mount, path))) tightest = std::min(tightest.value_or(*limit), *limit);
    if (path.empty()) return tightest;
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

std::optional<double> CgroupCpuLimit(const std::string& proc_self_cgroup, const std::string& cgroup_root) {
  std::optional<double> tightest;
  const std::vector<std::string> lines = absl::StrSplit(proc_self_cgroup, '\n', absl::SkipEmpty());
  for (const std::string& line : lines) {
    // hierarchy-ID:controllers:path
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    std::optional<double> limit;
    if (parts[1].empty()) {
      limit = TightestUpwards(cgroup_root, parts[2], LimitV2);
    } else {
      const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
      if (std::find(controllers.begin(), controllers.end(), "cpu") == controllers.end()) continue;
      limit = TightestUpwards(absl::StrCat(cgroup_root, "/", parts[1]), parts[2], LimitV1);
      if (!limit) limit = TightestUpwards(absl::StrCat(cgroup_root, "/cpu"), parts[2], LimitV1);
    }
    if (limit) tightest = std::min(tightest.value_or(*limit), *limit);
  }
  return tightest;
}

int DefaultThreads() {
  cpu_set_t allowed;
  int threads = 1;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) threads = std::max(1, CPU_COUNT(&allowed));
  const auto self = ReadFile("/proc/self/cgroup");
  if (const auto limit = CgroupCpuLimit(self.value_or(""), "/sys/fs/cgroup")) {
    threads = std::min(threads, std::max(1, static_cast<int>(std::ceil(*limit))));
  }
  return threads;
}

}  // namespace attnd::schedule
