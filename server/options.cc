#include "server/options.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/listen_address.h"
#include "server/log.h"
#include "server/status.h"
#include "server/status_macros.h"
#include "server/unix_socket.h"

namespace attnd::server {
namespace {

// protobuf's and gRPC's messages end below 2 GiB.
constexpr std::int64_t kMaxMessageBytes = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kNoBound = std::numeric_limits<std::int64_t>::max();

absl::Status CheckFlag(absl::string_view flag, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  if (high == kNoBound) return InvalidField(flag, absl::StrCat("at least ", low), value);
  return InvalidField(flag, absl::StrCat(low, " to ", high), value);
}

}  // namespace

absl::Status CheckOptions(const Options& options) {
  if (options.listen.empty()) return InvalidField("--listen", "at least one address", "none");
  for (const std::string& address : options.listen) {
    ATTND_RETURN_IF_ERROR(CheckAddress(address));
  }
  ATTND_RETURN_IF_ERROR(CheckFlag("--threads", options.threads, 0, 4096));
  if (options.drain < absl::ZeroDuration() || options.drain == absl::InfiniteDuration()) {
    return InvalidField("--drain_seconds", "a number from 0", absl::ToDoubleSeconds(options.drain));
  }
  if (!IsLogLevel(options.log_level)) {
    return InvalidField("--log_level", "trace, debug, info, warn, error or off", options.log_level);
  }
  const bool any_unix = std::any_of(options.listen.begin(), options.listen.end(),
                                    [](const std::string& address) { return UnixPathOf(address).has_value(); });
  if (options.shared_memory && !any_unix) {
    return InvalidField("--shared_memory", "a unix: address in --listen, beside which memory is handed over", "none");
  }
  const Limits& limits = options.limits;
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_shared_bytes", limits.max_shared_bytes, 1, kNoBound));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_request_bytes", limits.max_request_bytes, 1, kMaxMessageBytes));
  // Room for the fields beside the result.
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_result_bytes", limits.max_result_bytes, 1, kMaxMessageBytes - (1 << 20)));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_inflight_bytes", limits.max_inflight_bytes, 1, kNoBound));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_dim", limits.max_dim, 1, std::numeric_limits<std::int32_t>::max()));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_head_dim", limits.max_head_dim, 1, 1 << 20));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_models", limits.max_models, 1, kNoBound));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_table_values", limits.max_table_values, 1, kNoBound));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_bias_cells", limits.max_bias_cells, 1, 1 << 27));
  ATTND_RETURN_IF_ERROR(CheckFlag("--max_model_file_bytes", limits.max_model_file_bytes, 1, kNoBound));
  return absl::OkStatus();
}

}  // namespace attnd::server
