#include "server/serving/memory_setting.h"

#include <sys/sysinfo.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cgroup/cgroup.h"
#include "server/config/byte_size.h"
#include "server/serving/settings.h"

namespace attnd::server {
namespace {

std::string Said(std::int64_t bytes) { return AbslUnparseFlag(ByteSize{bytes}); }

// Describes the limits that can never be reached: a largest request or result that is more than one peer can have.
// Empty if there are none.
std::string NeverAdmitted(const Options& options) {
  const Limits& limits = options.limits;
  const std::int64_t most = options.peer_shares ? limits.max_inflight_bytes / 2 : limits.max_inflight_bytes;
  std::vector<std::string> never;
  if (limits.max_request_bytes > most)
    never.push_back(absl::StrCat("--max_request_bytes=", Said(limits.max_request_bytes)));
  if (limits.max_result_bytes > most)
    never.push_back(absl::StrCat("--max_result_bytes=", Said(limits.max_result_bytes)));
  if (never.empty()) return "";
  return absl::StrCat(absl::StrJoin(never, " and "), " cannot be reached: one peer can have ", Said(most),
                      options.peer_shares ? ", half" : ", all",
                      " of --max_inflight_bytes=", Said(limits.max_inflight_bytes));
}

}  // namespace

AllowedMemory AllowedToThisProcess() {
  struct sysinfo machine = {};
  AllowedMemory allowed{INT64_MAX, "the machine's memory"};
  if (sysinfo(&machine) == 0) allowed.bytes = static_cast<std::int64_t>(machine.totalram * machine.mem_unit);
  const std::optional<std::int64_t> limit = cgroup::MemoryLimit(cgroup::OfThisProcess());
  if (limit && *limit < allowed.bytes) allowed = {*limit, "the cgroup's limit"};
  return allowed;
}

v1::Setting MemorySetting(const Options& options, const AllowedMemory& allowed) {
  std::vector<std::string> fits;
  std::vector<std::string> too_large;
  const auto look = [&](const char* name, std::int64_t bytes) {
    (bytes <= allowed.bytes - kIdleBytes ? fits : too_large).push_back(absl::StrCat("--", name, "=", Said(bytes)));
  };
  look("max_inflight_bytes", options.limits.max_inflight_bytes);
  look("max_request_bytes", options.limits.max_request_bytes);
  look("max_result_bytes", options.limits.max_result_bytes);
  look("max_total_model_bytes", options.limits.max_total_model_bytes);
  if (SharesMemory(options)) look("max_shared_bytes", options.limits.max_shared_bytes);
  const std::string room = absl::StrCat(allowed.bytes >> 20, "MiB, ", allowed.source);
  std::vector<std::string> wrong;
  if (!too_large.empty()) {
    wrong.push_back(absl::StrCat(absl::StrJoin(too_large, ", "), ", and ", Said(kIdleBytes),
                                 " for the server itself, do not fit into ", room,
                                 ": a server that takes more is killed; lower the flags or allow more"));
  }
  if (std::string never = NeverAdmitted(options); !never.empty()) wrong.push_back(std::move(never));
  if (!wrong.empty()) return ObservedSetting("memory", false, absl::StrJoin(wrong, "; "));
  return ObservedSetting("memory", true, absl::StrCat(absl::StrJoin(fits, ", "), " fit into ", room));
}

}  // namespace attnd::server
