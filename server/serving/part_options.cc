#include "server/serving/part_options.h"

#include <limits>
#include <string>

#include "absl/time/time.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

// Unlimited.
constexpr int kAnyReads = std::numeric_limits<int>::max();

}  // namespace

memory::Ledger::Options LedgerOptionsOf(const Options& options) {
  return {.total = options.limits.max_inflight_bytes, .shares = options.peer_shares};
}

model::RegistryOptions RegistryOptionsOf(const Options& options) {
  model::RegistryOptions registry;
  registry.model_root = options.model_root;
  registry.max_models = options.limits.max_models;
  registry.max_table_values = options.limits.max_table_values;
  registry.max_model_file_bytes = options.limits.max_model_file_bytes;
  registry.max_model_bytes = options.limits.max_model_bytes;
  registry.max_total_model_bytes = options.limits.max_total_model_bytes;
  registry.log = [](const std::string& line) { spdlog::warn("{}", line); };
  return registry;
}

StallLimit StallLimitOf(const Options& options) {
  StallLimit limit;
  if (options.stall > absl::ZeroDuration()) limit.patience = options.stall;
  limit.bytes_per_second = options.min_rate;
  return limit;
}

SessionOptions SessionOptionsOf(const Options& options) {
  return {.most = options.max_sessions,
          .most_of_peer = options.max_peer_sessions,
          .lease = options.session_lease,
          .idle = options.session_idle,
          .life = options.session_life,
          .grace = options.session_grace};
}

AttentionServiceOptions AttentionServiceOptionsOf(const Options& options) {
  AttentionServiceOptions service;
  service.proxies = TrustedProxies(options);
  service.intake.places = static_cast<int>(options.limits.max_reads);
  service.intake.per_caller = service.intake.places > kAnyReads / 2 ? kAnyReads : 2 * service.intake.places;
  service.intake.max_wait = absl::ToChronoNanoseconds(options.max_queue_time);
  return service;
}

SharedMemoryLimits SharedMemoryLimitsOf(const Options& options) {
  SharedMemoryLimits limits;
  limits.max_total_bytes = options.limits.max_shared_bytes;
  limits.peer_shares = options.peer_shares;
  limits.max_connection_bytes = options.limits.max_shared_bytes / 2 + options.limits.max_shared_bytes % 2;
  return limits;
}

ConnectionLimits ConnectionLimitsOf(const Options& options) {
  return {options.limits.max_connections, options.limits.max_peer_connections, TrustedProxies(options)};
}

}  // namespace attnd::server
