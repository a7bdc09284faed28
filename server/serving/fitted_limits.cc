#include "server/serving/fitted_limits.h"

#include <algorithm>
#include <cstdint>

#include "schedule/intake_line.h"

namespace attnd::server {
namespace {

// Lower bound of max_inflight_bytes and max_shared_bytes: with less, a server is of little use. MemorySetting warns if
// the process may have less than twice this.
constexpr std::int64_t kLeastInflight = std::int64_t{32} << 20;
// Limits are rounded down to whole MiB, so that flags and logs are readable.
constexpr std::int64_t kStep = std::int64_t{1} << 20;

// Scratch memory of a thread that computes, at the largest head_dim.
constexpr std::int64_t kThreadBytes = std::int64_t{4} << 20;
// Enough for the embedded models and about a hundred models as large as T5's.
constexpr std::int64_t kLeastModels = std::int64_t{16} << 20;
// Memory of an idle connection, and how many connections the memory limit always allows.
constexpr std::int64_t kConnectionBytes = std::int64_t{24} << 10;
constexpr std::int64_t kLeastConnections = 256;

std::int64_t Whole(std::int64_t bytes) { return bytes < kStep ? bytes : bytes / kStep * kStep; }

}  // namespace

std::int64_t BaseBytes(int threads) { return kIdleBytes + threads * kThreadBytes; }

Limits FittedLimits(const Options& options, int threads, const AllowedMemory& allowed, std::int64_t connections) {
  constexpr Limits kMost;
  Limits limits = options.limits;
  const auto fit_count = [](std::int64_t& limit, std::int64_t count, std::int64_t most) {
    if (limit == 0) limit = std::min(count, most);
  };
  const auto fit = [fit_count](std::int64_t& limit, std::int64_t bytes, std::int64_t most) {
    fit_count(limit, Whole(bytes), most);
  };
  const std::int64_t left = std::max<std::int64_t>(0, allowed.bytes - BaseBytes(threads));
  fit(limits.max_total_model_bytes, std::max(left / 8, kLeastModels), kMost.max_total_model_bytes);
  fit(limits.max_model_bytes, limits.max_total_model_bytes, kMost.max_model_bytes);
  const std::int64_t half = std::max<std::int64_t>(0, left - limits.max_total_model_bytes) / 2;
  fit(limits.max_inflight_bytes, std::max(half, kLeastInflight), kMost.max_inflight_bytes);
  // The same with --nopeer_shares, although one peer can then have all of it.
  const std::int64_t eighth = std::max<std::int64_t>(1, limits.max_inflight_bytes / 8);
  fit(limits.max_request_bytes, eighth, kMost.max_request_bytes);
  fit(limits.max_result_bytes, eighth, kMost.max_result_bytes);
  fit(limits.max_shared_bytes, std::max(half, kLeastInflight), kMost.max_shared_bytes);
  const std::int64_t room = std::max(left / 16 / kConnectionBytes, kLeastConnections);
  fit_count(limits.max_connections, std::min(connections, room), kMost.max_connections);
  fit_count(limits.max_reads, schedule::DefaultPlaces(threads), kMost.max_reads);
  return limits;
}

}  // namespace attnd::server
