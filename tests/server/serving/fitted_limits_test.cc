#include "server/serving/fitted_limits.h"

#include <algorithm>
#include <cstdint>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int64_t kGiB = std::int64_t{1} << 30;

Limits Fitted(std::int64_t allowed, const Options& options = Options(), int threads = 4,
              std::int64_t connections = 1000) {
  return FittedLimits(options, threads, {allowed, "the cgroup's limit"}, connections);
}

TEST(FittedLimitsTest, HalfOfWhatTheServerItselfLeaves) {
  const Limits limits = Fitted(16 * kGiB);
  EXPECT_EQ(limits.max_inflight_bytes, (15 * kGiB - BaseBytes(4)) / 2);
  EXPECT_EQ(limits.max_request_bytes, 256 * kMiB);
  EXPECT_EQ(limits.max_result_bytes, 256 * kMiB);
  EXPECT_EQ(limits.max_shared_bytes, (15 * kGiB - BaseBytes(4)) / 2);
  EXPECT_EQ(limits.max_total_model_bytes, kGiB);
  EXPECT_EQ(limits.max_model_bytes, 256 * kMiB);
  EXPECT_EQ(limits.max_dim, Limits().max_dim) << "the others are as they were";
}

TEST(FittedLimitsTest, SmallMachinesHaveSmallLimits) {
  const Limits limits = Fitted(512 * kMiB);
  EXPECT_EQ(limits.max_inflight_bytes, 203 * kMiB);
  EXPECT_EQ(limits.max_request_bytes, 25 * kMiB);
  EXPECT_EQ(limits.max_result_bytes, 25 * kMiB);
  EXPECT_EQ(limits.max_shared_bytes, 203 * kMiB);
  EXPECT_EQ(limits.max_total_model_bytes, 58 * kMiB);
  EXPECT_EQ(limits.max_model_bytes, 58 * kMiB);
}

TEST(FittedLimitsTest, ThereIsALeastAndAMost) {
  const Limits least = Fitted(kMiB);
  EXPECT_EQ(least.max_inflight_bytes, 32 * kMiB);
  EXPECT_EQ(least.max_request_bytes, 4 * kMiB);
  EXPECT_EQ(least.max_total_model_bytes, 16 * kMiB);
  const Limits most = Fitted(INT64_MAX);
  EXPECT_EQ(most.max_inflight_bytes, 64 * kGiB);
  EXPECT_EQ(most.max_request_bytes, 256 * kMiB);
  EXPECT_EQ(most.max_shared_bytes, 8 * kGiB);
  EXPECT_EQ(most.max_total_model_bytes, kGiB);
}

// A peer that is alone may hold half of max_inflight_bytes. The largest request fits into that, with its largest result
// and with keys and values that are widened from half precision.
TEST(FittedLimitsTest, TheLargestRequestFitsForOnePeerAlone) {
  for (std::int64_t allowed = 64 * kMiB; allowed < 1024 * kGiB; allowed = allowed * 5 / 4) {
    const Limits limits = Fitted(allowed);
    const std::int64_t largest = limits.max_request_bytes + limits.max_result_bytes + 2 * limits.max_request_bytes;
    EXPECT_LE(largest, limits.max_inflight_bytes / 2) << allowed;
    EXPECT_LE(BaseBytes(4) + limits.max_total_model_bytes + 2 * limits.max_inflight_bytes,
              std::max(allowed, BaseBytes(4) + 80 * kMiB))
        << allowed;
    Options options;
    options.limits = limits;
    options.listen = {"unix:/x"};
    if (allowed < 128 * kMiB) continue;  // the least limits may not fit; the setting says so
    EXPECT_EQ(MemorySetting(options, {allowed, "the cgroup's limit"}).state(), v1::SETTING_STATE_IN_FORCE) << allowed;
  }
}

TEST(FittedLimitsTest, WhatIsGivenIsKeptAndTheRestFollowsIt) {
  Options options;
  options.limits.max_inflight_bytes = 512 * kMiB;
  options.limits.max_result_bytes = 3;
  const Limits limits = Fitted(16 * kGiB, options);
  EXPECT_EQ(limits.max_inflight_bytes, 512 * kMiB);
  EXPECT_EQ(limits.max_request_bytes, 64 * kMiB);
  EXPECT_EQ(limits.max_result_bytes, 3);
  options.limits.max_inflight_bytes = 1;
  EXPECT_EQ(Fitted(16 * kGiB, options).max_request_bytes, 1) << "0 would mean: not given";
  options.limits = Limits();
  const Limits given = Fitted(kMiB, options);
  EXPECT_EQ(given.max_inflight_bytes, Limits().max_inflight_bytes);
  EXPECT_EQ(given.max_shared_bytes, Limits().max_shared_bytes);
}

TEST(FittedLimitsTest, CallsAndSharedMemoryLeaveRoomForTheModelsThatAreAllowed) {
  Options options;
  options.limits.max_total_model_bytes = 12 * kGiB;
  const Limits limits = Fitted(16 * kGiB, options);
  EXPECT_EQ(limits.max_total_model_bytes, 12 * kGiB);
  EXPECT_EQ(limits.max_inflight_bytes, (4 * kGiB - BaseBytes(4)) / 2);
  EXPECT_EQ(limits.max_shared_bytes, (4 * kGiB - BaseBytes(4)) / 2);
  options.limits.max_total_model_bytes = INT64_MAX;
  EXPECT_EQ(Fitted(16 * kGiB, options).max_inflight_bytes, 32 * kMiB);
  options.limits.max_total_model_bytes = 3;
  EXPECT_EQ(Fitted(16 * kGiB, options).max_model_bytes, 3) << "no model may have more than all of them";
}

TEST(FittedLimitsTest, ConnectionsFollowDescriptorsAndMemory) {
  const auto connections = [](std::int64_t allowed, std::int64_t descriptors, std::int64_t given = 0) {
    Options options;
    options.limits.max_connections = given;
    return Fitted(allowed, options, 4, descriptors).max_connections;
  };
  EXPECT_EQ(connections(16 * kGiB, 744), 744);
  EXPECT_EQ(connections(512 * kMiB, 1'000'000), (512 * kMiB - BaseBytes(4)) / 16 / (24 << 10));
  EXPECT_EQ(connections(kMiB, 1'000'000), 256) << "there is a least";
  EXPECT_EQ(connections(kMiB, 3), 3);
  EXPECT_EQ(connections(INT64_MAX, 1'000'000), 65536) << "and a most";
  EXPECT_EQ(connections(kMiB, 3, 100'000), 100'000) << "what is given is kept";
  EXPECT_EQ(Fitted(kGiB).max_peer_connections, 0) << "as many as stay free";
}

TEST(FittedLimitsTest, AsManyAreReceivedAtATimeAsKeepThreadsBusy) {
  EXPECT_EQ(Fitted(kGiB, Options(), 1).max_reads, 8);
  EXPECT_EQ(Fitted(kGiB, Options(), 64).max_reads, 128);
  Options options;
  options.limits.max_reads = 3;
  EXPECT_EQ(Fitted(kGiB, options).max_reads, 3);
}

// For every limit of the table, on machines of any size.
TEST(FittedLimitsTest, EveryLimitIsFittedOrKept) {
  constexpr Limits kMost;
  Limits before = UnfittedLimits();
  for (std::int64_t allowed = 1; allowed < (std::int64_t{1} << 50); allowed *= 3) {
    SCOPED_TRACE(allowed);
    const Limits limits = Fitted(allowed);
    for (const LimitRow& row : LimitRows()) {
      const std::int64_t value = limits.*row.value;
      if (!row.fitted) {
        EXPECT_EQ(value, UnfittedLimits().*row.value) << row.name;
        continue;
      }
      EXPECT_GT(value, 0) << row.name << ": 0 would mean that it is not fitted";
      EXPECT_LE(value, kMost.*row.value) << row.name;
      EXPECT_GE(value, before.*row.value) << row.name << ": a larger machine has no smaller limits";
      for (const std::int64_t given : {std::int64_t{1}, std::int64_t{12'345'678}}) {
        Options options;
        options.limits.*row.value = given;
        EXPECT_EQ(Fitted(allowed, options).*row.value, given) << row.name;
      }
    }
    EXPECT_EQ(CheckLimits(limits), absl::OkStatus());
    before = limits;
  }
}

TEST(FittedLimitsTest, ThreadsTakeTheirShare) {
  EXPECT_LT(Fitted(4 * kGiB, Options(), 64).max_inflight_bytes, Fitted(4 * kGiB, Options(), 1).max_inflight_bytes);
}

}  // namespace
}  // namespace attnd::server
