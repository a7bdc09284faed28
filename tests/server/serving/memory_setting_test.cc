#include "server/serving/memory_setting.h"

#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

// The limits that a server had which knew nothing of the machine.
Options Large() {
  Options options;
  options.limits = Limits();
  options.limits.max_inflight_bytes = 1024 * kMiB;
  return options;
}

TEST(MemorySettingTest, LimitsFitIntoALargeMachine) {
  const v1::Setting setting = MemorySetting(Large(), {8192 * kMiB, "the machine's memory"});
  EXPECT_EQ(setting.name(), "memory");
  EXPECT_EQ(setting.state(), v1::SETTING_STATE_IN_FORCE) << setting.detail();
  EXPECT_THAT(setting.detail(), HasSubstr("--max_inflight_bytes=1GiB, --max_request_bytes=256MiB"));
}

TEST(MemorySettingTest, NamesEachLimitThatDoesNotFit) {
  const v1::Setting setting = MemorySetting(Large(), {512 * kMiB, "the cgroup's limit"});
  EXPECT_EQ(setting.state(), v1::SETTING_STATE_NOT_IN_FORCE);
  EXPECT_THAT(setting.detail(), HasSubstr("--max_inflight_bytes=1GiB, --max_total_model_bytes=1GiB, and 32MiB for the "
                                          "server itself, do not fit into 512MiB, the cgroup's limit"));
  EXPECT_THAT(setting.detail(), Not(HasSubstr("max_request_bytes"))) << "it fits";
  const v1::Setting tiny = MemorySetting(Large(), {64 * kMiB, "the cgroup's limit"});
  EXPECT_THAT(tiny.detail(), HasSubstr("--max_inflight_bytes=1GiB, --max_request_bytes=256MiB, --max_result_bytes"));
}

TEST(MemorySettingTest, TheServerItselfCounts) {
  Options options;
  options.limits.max_inflight_bytes = options.limits.max_request_bytes = options.limits.max_result_bytes = 96 * kMiB;
  options.peer_shares = false;
  EXPECT_EQ(MemorySetting(options, {128 * kMiB, ""}).state(), v1::SETTING_STATE_IN_FORCE);
  EXPECT_EQ(MemorySetting(options, {128 * kMiB - 1, ""}).state(), v1::SETTING_STATE_NOT_IN_FORCE);
}

TEST(MemorySettingTest, SharedMemoryCountsWhereItIsShared) {
  Options options = Large();
  EXPECT_THAT(MemorySetting(options, {2048 * kMiB, ""}).detail(), Not(HasSubstr("max_shared_bytes")));
  options.listen = {"unix:/x"};
  EXPECT_THAT(MemorySetting(options, {2048 * kMiB, ""}).detail(), HasSubstr("--max_shared_bytes=8GiB, and 32MiB"));
}

TEST(MemorySettingTest, NamesWhatOnePeerCanNeverHave) {
  Options options;
  options.limits.max_inflight_bytes = 100 * kMiB;
  options.limits.max_request_bytes = 60 * kMiB;
  options.limits.max_result_bytes = 50 * kMiB;
  const v1::Setting setting = MemorySetting(options, {8192 * kMiB, ""});
  EXPECT_EQ(setting.state(), v1::SETTING_STATE_NOT_IN_FORCE);
  EXPECT_EQ(
      setting.detail(),
      "--max_request_bytes=60MiB cannot be reached: one peer can have 50MiB, half of --max_inflight_bytes=100MiB");
  options.peer_shares = false;
  EXPECT_EQ(MemorySetting(options, {8192 * kMiB, ""}).state(), v1::SETTING_STATE_IN_FORCE);
  options.limits.max_result_bytes = 101 * kMiB;
  EXPECT_EQ(
      MemorySetting(options, {8192 * kMiB, ""}).detail(),
      "--max_result_bytes=101MiB cannot be reached: one peer can have 100MiB, all of --max_inflight_bytes=100MiB");
}

TEST(MemorySettingTest, ThisProcessMayHaveSome) {
  const AllowedMemory allowed = AllowedToThisProcess();
  EXPECT_GT(allowed.bytes, 0);
  EXPECT_LT(allowed.bytes, INT64_MAX);
  EXPECT_THAT(allowed.source, testing::AnyOf("the machine's memory", "the cgroup's limit"));
}

}  // namespace
}  // namespace attnd::server
