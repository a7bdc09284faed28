#include "server/serving/server_info.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "kernel/registry.h"
#include "server/config/limits.h"
#include "server/config/version.h"
#include "server/serving/grpc_settings.h"
#include "server/serving/memory_setting.h"
#include "server/serving/settings.h"

namespace attnd::server {
namespace {

const kernel::Kernel& Best() { return *kernel::AvailableKernels().front(); }

std::int64_t ValueOf(const v1::Limits& limits, const std::string& name) {
  const google::protobuf::FieldDescriptor* const field = v1::Limits::descriptor()->FindFieldByName(name);
  EXPECT_NE(field, nullptr) << name;
  return field == nullptr ? -1 : limits.GetReflection()->GetInt64(limits, field);
}

// Each limit with a value of its own.
Options DistinctLimits(bool shared_memory) {
  Options options;
  options.shared_memory = shared_memory;
  options.listen = {"unix:/x"};
  std::int64_t value = 1000;
  for (const LimitRow& row : LimitRows()) options.limits.*row.value = ++value;
  return options;
}

TEST(ServerInfoTest, HasEveryLimitWithItsValue) {
  const Options options = DistinctLimits(/*shared_memory=*/true);
  const v1::GetServerInfoResponse info = InfoOf(options, Best(), 1, {});
  for (const LimitRow& row : LimitRows())
    EXPECT_EQ(ValueOf(info.limits(), row.name), options.limits.*row.value) << row.name;
}

TEST(ServerInfoTest, WithoutSharedMemoryItsLimitIsZeroAndTheOthersStay) {
  const Options options = DistinctLimits(/*shared_memory=*/false);
  const v1::GetServerInfoResponse info = InfoOf(options, Best(), 1, {});
  for (const LimitRow& row : LimitRows()) {
    const bool shared = std::string(row.name) == "max_shared_bytes";
    EXPECT_EQ(ValueOf(info.limits(), row.name), shared ? 0 : options.limits.*row.value) << row.name;
  }
}

TEST(ServerInfoTest, WithoutAUnixSocketThereAreNeitherSharedMemoryNorLocalCalls) {
  Options options = DistinctLimits(/*shared_memory=*/true);
  EXPECT_TRUE(InfoOf(options, Best(), 1, {}).local_calls());
  options.listen = {"127.0.0.1:0"};
  const v1::GetServerInfoResponse info = InfoOf(options, Best(), 1, {});
  EXPECT_EQ(info.limits().max_shared_bytes(), 0);
  EXPECT_FALSE(info.local_calls());
}

TEST(ServerInfoTest, SaysWhatIsInUseNow) {
  memory::Ledger ledger({.total = 1000});
  SharedMemory shared({.max_total_bytes = 500});
  const model::Registry models{{}};
  Counters counters;
  counters.stalled_writes = 4;
  counters.stalled_reads = 5;
  v1::GetServerInfoResponse info;
  AddUse(ledger, &shared, counters, models, {.waiting = 5, .refused = 6, .expired = 7},
         {.open = 8, .evicted = 9, .most = 10, .most_of_peer = 11}, info);
  EXPECT_EQ(info.sessions().open(), 8);
  EXPECT_EQ(info.sessions().evicted(), 9);
  EXPECT_EQ(info.sessions().max_sessions(), 10);
  EXPECT_EQ(info.sessions().max_peer_sessions(), 11);
  EXPECT_EQ(info.queue().waiting(), 5);
  EXPECT_EQ(info.queue().refused(), 6);
  EXPECT_EQ(info.queue().expired(), 7);
  EXPECT_EQ(info.memory().total_bytes(), 1000);
  EXPECT_EQ(info.memory().max_peer_bytes(), 500);
  EXPECT_EQ(info.memory().used_bytes(), 0);
  EXPECT_EQ(info.shared_memory().total_bytes(), 500);
  EXPECT_EQ(info.stalled_calls().writes(), 4);
  EXPECT_EQ(info.stalled_calls().reads(), 5);
  {
    const auto one = ledger.Take(ledger.AccountOf("a"), 300);
    const auto two = ledger.Take(ledger.AccountOf("b"), 200);
    const auto by_share = ledger.Take(ledger.AccountOf("a"), 300);
    const auto by_total = ledger.Take(ledger.AccountOf("c"), 500);
    const auto never = ledger.Take(ledger.AccountOf("c"), 501);
    v1::GetServerInfoResponse busy;
    AddUse(ledger, nullptr, counters, models, {}, {}, busy);
    EXPECT_EQ(busy.memory().used_bytes(), 500);
    EXPECT_EQ(busy.memory().free_bytes(), 500);
    EXPECT_EQ(busy.memory().peers(), 2);
    EXPECT_EQ(busy.memory().largest_peer_bytes(), 300);
    EXPECT_EQ(busy.memory().refused_by_share(), 2);
    EXPECT_EQ(busy.memory().refused_by_total(), 0);
    EXPECT_EQ(busy.memory().refused_as_never_fitting(), 1);
    EXPECT_FALSE(busy.has_shared_memory());
  }
  AddUse(ledger, nullptr, counters, models, {}, {}, info);
  EXPECT_EQ(info.memory().used_bytes(), 0);
  EXPECT_EQ(info.memory().peak_bytes(), 500);
}

TEST(ServerInfoTest, CountsCallsBeforeAndInTheQueue) {
  const schedule::QueueUse both =
      WithIntake({.waiting = 1, .refused = 20, .expired = 300}, {.waiting = 4000, .refused = 50'000, .late = 600'000});
  EXPECT_EQ(both.waiting, 4001);
  EXPECT_EQ(both.refused, 650'020);
  EXPECT_EQ(both.expired, 300);
}

TEST(ServerInfoTest, SharedMemoryHasItsOwnNumbers) {
  const memory::Ledger ledger({.total = 1000});
  const SharedMemory shared({.max_total_bytes = 500});
  v1::GetServerInfoResponse info;
  AddUse(ledger, &shared, Counters(), model::Registry{{}}, {}, {}, info);
  const memory::Ledger::Usage usage = shared.GetUsage();
  EXPECT_EQ(info.shared_memory().total_bytes(), usage.total);
  EXPECT_EQ(info.shared_memory().max_peer_bytes(), usage.most_for_one);
  EXPECT_EQ(info.shared_memory().free_bytes(), usage.total);
  EXPECT_NE(info.shared_memory().max_peer_bytes(), info.memory().max_peer_bytes());
}

TEST(ServerInfoTest, SaysWhatModelsHoldNow) {
  const memory::Ledger ledger({.total = 1000});
  const Counters counters;
  model::Registry models{{}};
  v1::GetServerInfoResponse info;
  AddUse(ledger, nullptr, counters, models, {}, {}, info);
  EXPECT_EQ(info.model_bytes(), 0);
  ASSERT_TRUE(models.AddEmbedded().ok());
  AddUse(ledger, nullptr, counters, models, {}, {}, info);
  EXPECT_GT(info.model_bytes(), 0);
  EXPECT_EQ(info.model_bytes(), models.table_bytes());
  for (const auto& model : models.List("", 10)) ASSERT_TRUE(models.Unload(model->name()).ok());
  AddUse(ledger, nullptr, counters, models, {}, {}, info);
  EXPECT_EQ(info.model_bytes(), 0);
}

TEST(ServerInfoTest, SaysWhatRuns) {
  for (const kernel::Kernel* kernel : kernel::AvailableKernels()) {
    EXPECT_EQ(InfoOf(Options(), *kernel, 1, {}).kernel(), kernel::NameOf(*kernel));
  }
  const absl::Time before = absl::Now();
  const v1::GetServerInfoResponse info = InfoOf(Options(), Best(), 17, {});
  const absl::Time after = absl::Now();
  EXPECT_EQ(info.version(), kVersion);
  EXPECT_EQ(info.threads(), 17);
  std::vector<std::string> available;
  for (const kernel::Kernel* kernel : kernel::AvailableKernels()) available.emplace_back(kernel::NameOf(*kernel));
  EXPECT_THAT(info.available_kernels(), testing::ElementsAreArray(available));
  const absl::Time started =
      absl::FromUnixSeconds(info.started_at().seconds()) + absl::Nanoseconds(info.started_at().nanos());
  EXPECT_GE(started, before - absl::Nanoseconds(1));
  EXPECT_LE(started, after);
}

TEST(ServerInfoTest, TheServersSettingsFollowTheProcesses) {
  const std::vector<v1::Setting> of_process = {ObservedSetting("allocator", false, "none"),
                                               RequestedSetting("other", "detail")};
  Options options;
  options.kernel = "another";
  const v1::GetServerInfoResponse info = InfoOf(options, Best(), 1, of_process);
  ASSERT_EQ(info.settings_size(), 5);
  EXPECT_EQ(info.settings(0).DebugString(), of_process[0].DebugString());
  EXPECT_EQ(info.settings(1).DebugString(), of_process[1].DebugString());
  EXPECT_EQ(info.settings(2).DebugString(), KernelSetting(Best(), "another").DebugString());
  EXPECT_EQ(info.settings(3).DebugString(), ReadBytesSetting().DebugString());
  EXPECT_EQ(info.settings(4).DebugString(), MemorySetting(options, AllowedToThisProcess()).DebugString());
}

}  // namespace
}  // namespace attnd::server
