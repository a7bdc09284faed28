#include "cgroup/cgroup.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace attnd::cgroup {
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

// The limits that one group's folder sets.
std::optional<double> CpuV2(const std::string& folder) {
  const auto text = ReadFile(absl::StrCat(folder, "/cpu.max"));
  if (!text) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  if (words.size() != 2) return std::nullopt;
  return Ratio(words[0], words[1]);
}

std::optional<double> CpuV1(const std::string& folder) {
  const auto quota = ReadFile(absl::StrCat(folder, "/cpu.cfs_quota_us"));
  const auto period = ReadFile(absl::StrCat(folder, "/cpu.cfs_period_us"));
  if (!quota || !period) return std::nullopt;
  return Ratio(*quota, *period);
}

// The byte count in a file; nullopt for "max" and for v1's notation of no limit, the largest number of whole pages.
std::optional<std::int64_t> Bytes(const std::string& path) {
  constexpr std::int64_t kNoLimit = std::int64_t{1} << 62;
  const auto text = ReadFile(path);
  std::int64_t bytes = 0;
  if (!text || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &bytes)) return std::nullopt;
  if (bytes < 0 || bytes >= kNoLimit) return std::nullopt;
  return bytes;
}

std::optional<std::int64_t> MemoryV2(const std::string& folder) { return Bytes(absl::StrCat(folder, "/memory.max")); }
std::optional<std::int64_t> MemoryV1(const std::string& folder) {
  return Bytes(absl::StrCat(folder, "/memory.limit_in_bytes"));
}

template <typename T>
std::optional<T> Tighter(const std::optional<T>& one, const std::optional<T>& other) {
  if (!one || !other) return one ? one : other;
  return std::min(*one, *other);
}

// The tightest limit from `path` up to the root of the mount. If the mount does not show `path` (a container that sees
// the host's path, say), the root's own limit still counts.
template <typename T>
std::optional<T> TightestUpwards(const std::string& mount, std::string path,
                                 std::optional<T> (*limit_of)(const std::string&)) {
  std::optional<T> tightest;
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    tightest = Tighter(tightest, limit_of(absl::StrCat(mount, path)));
    if (path.empty()) return tightest;
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

// The tightest limit of all hierarchies: v2, and the v1 hierarchy with `controller`.
template <typename T>
std::optional<T> Tightest(const Groups& groups, absl::string_view controller,
                          std::optional<T> (*v2)(const std::string&), std::optional<T> (*v1)(const std::string&)) {
  std::optional<T> tightest;
  const std::vector<std::string> lines = absl::StrSplit(groups.self, '\n', absl::SkipEmpty());
  for (const std::string& line : lines) {
    // hierarchy-ID:controllers:path
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    std::optional<T> limit;
    if (parts[1].empty()) {
      limit = TightestUpwards(groups.root, parts[2], v2);
    } else {
      const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
      if (std::find(controllers.begin(), controllers.end(), controller) == controllers.end()) continue;
      limit = TightestUpwards(absl::StrCat(groups.root, "/", parts[1]), parts[2], v1);
      if (!limit) limit = TightestUpwards(absl::StrCat(groups.root, "/", controller), parts[2], v1);
    }
    tightest = Tighter(tightest, limit);
  }
  return tightest;
}

}  // namespace

Groups OfThisProcess() {
  Groups groups;
  groups.self = ReadFile("/proc/self/cgroup").value_or("");
  return groups;
}

std::optional<double> CpuLimit(const Groups& groups) { return Tightest(groups, "cpu", &CpuV2, &CpuV1); }

std::optional<std::int64_t> MemoryLimit(const Groups& groups) {
  return Tightest(groups, "memory", &MemoryV2, &MemoryV1);
}

}  // namespace attnd::cgroup
