#include "server/config/options.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/net/address.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

constexpr std::array<absl::string_view, 6> kLogLevels = {"trace", "debug", "info", "warn", "error", "off"};

bool AnyUnix(const Options& options) {
  return std::any_of(options.listen.begin(), options.listen.end(),
                     [](const std::string& address) { return UnixPathOf(address).has_value(); });
}

}  // namespace

bool SharesMemory(const Options& options) { return options.shared_memory && AnyUnix(options); }

bool TakesLocalCalls(const Options& options) { return options.local_calls && AnyUnix(options); }

std::vector<AddressRange> TrustedProxies(const Options& options) {
  std::vector<AddressRange> ranges;
  for (const std::string& proxy : options.trusted_proxies) {
    if (absl::StatusOr<AddressRange> range = AddressRange::Parse(proxy); range.ok()) ranges.push_back(*range);
  }
  return ranges;
}

absl::Status CheckOptions(const Options& options) {
  if (options.listen.empty()) return InvalidField("--listen", "at least one address", "none");
  for (const std::string& address : options.listen) {
    ATTND_RETURN_IF_ERROR(ParseAddress(address).status());
  }
  for (const std::string& proxy : options.trusted_proxies) {
    if (AddressRange::Parse(proxy).ok()) continue;
    return InvalidField("--trusted_proxies", "addresses or ranges such as 10.0.0.1 or fd00::/8", proxy);
  }
  if (options.threads < 0 || options.threads > 4096) return InvalidField("--threads", "0 to 4096", options.threads);
  if (options.strict_models && options.model_root.empty()) {
    return InvalidField("--strict_models", "--model_root beside it", "none");
  }
  if (options.drain < absl::ZeroDuration() || options.drain == absl::InfiniteDuration()) {
    return InvalidField("--drain_seconds", "a number from 0", absl::ToDoubleSeconds(options.drain));
  }
  for (const auto& [flag, value] : {std::pair{"--keepalive_time", options.keepalive_time},
                                    {"--keepalive_timeout", options.keepalive_timeout},
                                    {"--min_ping_interval", options.min_ping_interval},
                                    {"--handshake_time", options.handshake_time},
                                    {"--max_connection_idle", options.max_connection_idle},
                                    {"--max_connection_age", options.max_connection_age},
                                    {"--max_connection_age_grace", options.max_connection_age_grace},
                                    {"--session_lease", options.session_lease},
                                    {"--session_idle", options.session_idle},
                                    {"--session_life", options.session_life}}) {
    if (value < absl::Milliseconds(1)) return InvalidField(flag, "at least 1ms", absl::FormatDuration(value));
  }
  if (options.session_grace < absl::ZeroDuration() || options.session_grace > absl::Hours(24)) {
    return InvalidField("--session_grace", "0 to 24h", absl::FormatDuration(options.session_grace));
  }
  if (options.max_queue_time <= absl::ZeroDuration()) {
    return InvalidField("--max_queue_time", "a time above 0, or inf", absl::FormatDuration(options.max_queue_time));
  }
  if (options.stall < absl::ZeroDuration()) {
    return InvalidField("--stall_seconds", "a number from 0, or inf", absl::ToDoubleSeconds(options.stall));
  }
  if (options.max_sessions < 0) return InvalidField("--max_sessions", "at least 0", options.max_sessions);
  if (options.max_peer_sessions < 1) {
    return InvalidField("--max_peer_sessions", "at least 1", options.max_peer_sessions);
  }
  if (options.min_rate < 1) return InvalidField("--min_rate", "at least 1 byte a second", options.min_rate);
  if (std::find(kLogLevels.begin(), kLogLevels.end(), options.log_level) == kLogLevels.end()) {
    return InvalidField("--log_level", "trace, debug, info, warn, error or off", options.log_level);
  }
  return CheckLimits(options.limits);
}

}  // namespace attnd::server
