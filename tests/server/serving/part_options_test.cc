// Each part of the server gets the options that it is meant to have: every option has a value of its own here.

#include "server/serving/part_options.h"

#include <chrono>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

Options Distinct() {
  Options options;
  std::int64_t value = 1000;
  for (const LimitRow& row : LimitRows()) options.limits.*row.value = ++value;
  options.model_root = "/models";
  options.trusted_proxies = {"10.0.0.0/8", "fd00::1"};
  options.max_sessions = 2001;
  options.max_peer_sessions = 2002;
  options.session_lease = absl::Seconds(2003);
  options.session_idle = absl::Seconds(2004);
  options.session_life = absl::Seconds(2005);
  options.session_grace = absl::Seconds(2006);
  options.stall = absl::Seconds(2007);
  options.min_rate = 2008;
  options.max_queue_time = absl::Seconds(2009);
  return options;
}

TEST(PartOptionsTest, Ledger) {
  Options options = Distinct();
  for (const bool shares : {true, false}) {
    options.peer_shares = shares;
    EXPECT_EQ(LedgerOptionsOf(options).total, options.limits.max_inflight_bytes);
    EXPECT_EQ(LedgerOptionsOf(options).shares, shares);
  }
}

TEST(PartOptionsTest, Registry) {
  const Options options = Distinct();
  const model::RegistryOptions registry = RegistryOptionsOf(options);
  EXPECT_EQ(registry.model_root, "/models");
  EXPECT_EQ(registry.max_models, options.limits.max_models);
  EXPECT_EQ(registry.max_table_values, options.limits.max_table_values);
  EXPECT_EQ(registry.max_model_file_bytes, options.limits.max_model_file_bytes);
  EXPECT_EQ(registry.max_model_bytes, options.limits.max_model_bytes);
  EXPECT_EQ(registry.max_total_model_bytes, options.limits.max_total_model_bytes);
  EXPECT_NE(registry.log, nullptr);
}

TEST(PartOptionsTest, Stalls) {
  Options options = Distinct();
  EXPECT_EQ(StallLimitOf(options).patience, absl::Seconds(2007));
  EXPECT_EQ(StallLimitOf(options).bytes_per_second, 2008);
  options.stall = absl::Nanoseconds(1);
  EXPECT_EQ(StallLimitOf(options).patience, absl::Nanoseconds(1));
  for (const absl::Duration never : {absl::ZeroDuration(), absl::InfiniteDuration()}) {
    options.stall = never;
    EXPECT_EQ(StallLimitOf(options).patience, absl::InfiniteDuration());
  }
}

TEST(PartOptionsTest, Sessions) {
  const SessionOptions sessions = SessionOptionsOf(Distinct());
  EXPECT_EQ(sessions.most, 2001);
  EXPECT_EQ(sessions.most_of_peer, 2002);
  EXPECT_EQ(sessions.lease, absl::Seconds(2003));
  EXPECT_EQ(sessions.idle, absl::Seconds(2004));
  EXPECT_EQ(sessions.life, absl::Seconds(2005));
  EXPECT_EQ(sessions.grace, absl::Seconds(2006));
}

TEST(PartOptionsTest, Attention) {
  Options options = Distinct();
  const AttentionServiceOptions service = AttentionServiceOptionsOf(options);
  ASSERT_EQ(service.proxies.size(), 2U);
  EXPECT_TRUE(service.proxies[0].Contains("10.1.2.3"));
  EXPECT_TRUE(service.proxies[1].Contains("fd00::1"));
  EXPECT_EQ(service.intake.places, options.limits.max_reads);
  EXPECT_EQ(service.intake.per_caller, 2 * options.limits.max_reads);
  EXPECT_EQ(service.intake.max_wait, std::chrono::seconds(2009));
  // Twice as many, where an int has room for that.
  constexpr int kMost = std::numeric_limits<int>::max();
  for (const auto& [places, per_caller] :
       {std::pair{1, 2}, {kMost / 2, kMost - 1}, {kMost / 2 + 1, kMost}, {kMost, kMost}}) {
    options.limits.max_reads = places;
    EXPECT_EQ(AttentionServiceOptionsOf(options).intake.places, places);
    EXPECT_EQ(AttentionServiceOptionsOf(options).intake.per_caller, per_caller);
  }
}

TEST(PartOptionsTest, SharedMemory) {
  Options options = Distinct();
  for (const auto& [total, of_connection] : {std::pair<std::int64_t, std::int64_t>{1000, 500}, {1001, 501}, {1, 1}}) {
    for (const bool shares : {true, false}) {
      options.limits.max_shared_bytes = total;
      options.peer_shares = shares;
      const SharedMemoryLimits limits = SharedMemoryLimitsOf(options);
      EXPECT_EQ(limits.max_total_bytes, total);
      EXPECT_EQ(limits.max_connection_bytes, of_connection);
      EXPECT_EQ(limits.peer_shares, shares);
    }
  }
}

TEST(PartOptionsTest, Connections) {
  const Options options = Distinct();
  const ConnectionLimits limits = ConnectionLimitsOf(options);
  EXPECT_EQ(limits.most, options.limits.max_connections);
  EXPECT_EQ(limits.most_of_peer, options.limits.max_peer_connections);
  ASSERT_EQ(limits.proxies.size(), 2U);
  EXPECT_TRUE(limits.proxies[0].Contains("10.1.2.3"));
}

}  // namespace
}  // namespace attnd::server
