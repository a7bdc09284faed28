// What the tables of models hold: counted once each, within the limits, given back. The counts are held against those
// of operator new.
#include "model/model_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "counted_new.h"
#include "model/registry.h"

namespace attnd::model {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kValues = 1 << 16;
constexpr std::int64_t kTables = 53;
// Of a table with a value for each offset: the values, and its per-offset form.
constexpr std::int64_t kTableBytes = 8 * kValues + 16 + bias::kTableOverhead;

// The allocator rounds large blocks up to pages: here the values and their form.
constexpr std::int64_t kRounding = 2 * 4096;

std::vector<float> Values(std::int64_t count = kValues) {
  return std::vector<float>(static_cast<std::size_t>(count), 0.5F);
}

absl::StatusOr<bias::BiasTable> Made(const Registry& registry, std::int64_t count = kValues) {
  return bias::BiasTable::Create(1, bias::PerOffsetRule{0, Values(count)}, bias::BiasTable::kMaxValues,
                                 registry.NewTicket());
}

absl::Status Upload(Registry& registry, const std::string& model, std::int64_t table, bool replace = false) {
  auto made = Made(registry);
  if (!made.ok()) return made.status();
  return registry.Upload(model, absl::StrCat("decoder.", table), *std::move(made), replace).status();
}

RegistryOptions Within(std::int64_t model_bytes, std::int64_t total_bytes) {
  RegistryOptions options;
  options.max_model_bytes = model_bytes;
  options.max_total_model_bytes = total_bytes;
  return options;
}

TEST(ModelMemoryTest, ATablesBytesAreWhatItHolds) {
  const std::vector<std::pair<std::int64_t, bias::Rule>> rules = {
      {1, bias::PerOffsetRule{-5, Values()}},
      {4, bias::PerOffsetRule{0, Values()}},
      {1 << 14, bias::AlibiRule{true, Values(1 << 14)}},
      {8, bias::T5Rule{64, 1 << 14, false, Values(64 * 8)}},
      {8, bias::T5Rule{64, 1 << 14, true, Values(64 * 8)}},
      {2, bias::T5Rule{1 << 14, 1 << 15, false, Values(1 << 15)}},
  };
  for (const auto& [heads, rule] : rules) {
    const std::int64_t before = LiveBytes();
    const absl::StatusOr<bias::BiasTable> table = bias::BiasTable::Create(heads, rule);
    ASSERT_TRUE(table.ok()) << table.status();
    const std::int64_t held = LiveBytes() - before;
    EXPECT_LE(held, table->bytes() + kRounding) << heads << " heads, rule " << rule.index();
    EXPECT_GE(held, table->bytes() - bias::kTableOverhead) << heads << " heads, rule " << rule.index();
  }
}

TEST(ModelMemoryTest, ReservedMemoryIsGivenBack) {
  std::vector<float> values = Values(1000);
  values.reserve(1 << 20);
  const absl::StatusOr<bias::BiasTable> table = bias::BiasTable::Create(1, bias::PerOffsetRule{0, std::move(values)});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(std::get<bias::PerOffsetRule>(table->rule()).values.capacity(), 1000U);
}

TEST(ModelMemoryTest, UploadsHoldEachTableOnce) {
  Registry registry(Within(INT64_MAX, INT64_MAX));
  const std::int64_t before = LiveBytes();
  ResetPeak();
  for (std::int64_t i = 0; i < kTables; ++i) ASSERT_TRUE(Upload(registry, "m", i).ok());
  EXPECT_EQ(registry.table_bytes(), kTables * kTableBytes);
  const std::int64_t sum = kTables * kTableBytes;
  EXPECT_LE(LiveBytes() - before, sum + sum / 50) << "each table once";
  EXPECT_LE(PeakBytes() - before, sum + sum / 50) << "at any time";
  EXPECT_EQ((*registry.Find("m"))->contents().tables.size(), static_cast<std::size_t>(kTables));
}

TEST(ModelMemoryTest, VersionsShareTheirTables) {
  Registry registry(Within(INT64_MAX, INT64_MAX));
  ASSERT_TRUE(Upload(registry, "m", 0).ok());
  const auto first = *registry.Find("m");
  ASSERT_TRUE(Upload(registry, "m", 1).ok());
  const auto second = *registry.Find("m");
  EXPECT_EQ(first->FindTable("decoder.0")->table->offset_form().values.data(),
            second->FindTable("decoder.0")->table->offset_form().values.data());
  EXPECT_EQ(second->content_hash(), ContentHash(HashesOf(second->contents().tables))) << "though one was hashed alone";
  EXPECT_EQ(registry.table_bytes(), 2 * kTableBytes);
}

TEST(ModelMemoryTest, AModelIsHeldToItsLimit) {
  Registry registry(Within(3 * kTableBytes, INT64_MAX));
  for (std::int64_t i = 0; i < 3; ++i) ASSERT_TRUE(Upload(registry, "m", i).ok());
  const absl::Status refused = Upload(registry, "m", 3);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("max_model_bytes"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr(absl::StrCat(3 * kTableBytes)));
  EXPECT_EQ((*registry.Find("m"))->version(), 3U) << "the version before stays";
  EXPECT_EQ(registry.table_bytes(), 3 * kTableBytes) << "what was refused is given back";
  EXPECT_TRUE(Upload(registry, "n", 0).ok()) << "the limit is each model's";
  EXPECT_TRUE(Upload(registry, "m", 2, /*replace=*/true).ok()) << "what is replaced does not count for the model";
}

TEST(ModelMemoryTest, AllModelsAreHeldToTheirLimit) {
  Registry registry(Within(INT64_MAX, 3 * kTableBytes));
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(Upload(registry, name, 0).ok());
  const absl::Status refused = Upload(registry, "d", 0);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("max_total_model_bytes"));
  EXPECT_FALSE(registry.Find("d").ok());
  ASSERT_TRUE(registry.Unload("b").ok());
  EXPECT_TRUE(Upload(registry, "d", 0).ok()) << "an unload gives back";
  for (const char* name : {"a", "c", "d"}) ASSERT_TRUE(registry.Unload(name).ok());
  EXPECT_EQ(registry.table_bytes(), 0);
}

TEST(ModelMemoryTest, AVersionThatACallHoldsCounts) {
  Registry registry(Within(INT64_MAX, 2 * kTableBytes));
  ASSERT_TRUE(Upload(registry, "m", 0).ok());
  auto held = *registry.Find("m");
  ASSERT_TRUE(registry.Unload("m").ok());
  EXPECT_EQ(registry.table_bytes(), kTableBytes);
  ASSERT_TRUE(Upload(registry, "m", 0).ok());
  EXPECT_FALSE(Upload(registry, "n", 0).ok());
  held.reset();
  EXPECT_TRUE(Upload(registry, "n", 0).ok());
}

TEST(ModelMemoryTest, RefusedUploadsGiveBack) {
  Registry registry(Within(INT64_MAX, INT64_MAX));
  ASSERT_TRUE(Upload(registry, "m", 0).ok());
  EXPECT_FALSE(Upload(registry, "m", 0).ok()) << "it has this table";
  EXPECT_FALSE(Upload(registry, "../m", 0).ok());
  auto other = bias::BiasTable::Create(2, bias::PerOffsetRule{0, Values()});
  EXPECT_FALSE(registry.Upload("m", "decoder.1", *std::move(other), false).ok()) << "another number of heads";
  EXPECT_EQ(registry.table_bytes(), kTableBytes);
}

TEST(ModelMemoryTest, ATableMadeWithoutATicketIsCounted) {
  Registry registry(Within(kTableBytes, kTableBytes));
  auto table = bias::BiasTable::Create(1, bias::PerOffsetRule{0, Values()});
  ASSERT_TRUE(registry.Upload("m", "decoder", *std::move(table), false).ok());
  EXPECT_EQ(registry.table_bytes(), kTableBytes);
  auto more = bias::BiasTable::Create(1, bias::PerOffsetRule{0, Values()});
  EXPECT_FALSE(registry.Upload("n", "decoder", *std::move(more), false).ok());
}

TEST(ModelMemoryTest, WhatDoesNotFitIsNotAllocated) {
  Registry registry(Within(1 << 20, INT64_MAX));
  const std::int64_t before = LiveBytes();
  ResetPeak();
  // 32 values, and a form of some 30 MiB.
  const auto far = bias::BiasTable::Create(1, bias::T5Rule{32, 1 << 24, false, Values(32)}, std::int64_t{1} << 28,
                                           registry.NewTicket());
  EXPECT_EQ(far.status().code(), absl::StatusCode::kResourceExhausted) << far.status();
  EXPECT_LT(PeakBytes() - before, 1 << 20);
}

TEST(ModelMemoryTest, FilesAreHeldToTheLimits) {
  const std::filesystem::path root = std::filesystem::path(::testing::TempDir()) / "model_memory_test";
  std::filesystem::create_directories(root);
  std::ofstream(root / "far.json") << R"({"tables": {
      "decoder.0": {"rule": "t5", "num_buckets": 4, "max_distance": 10000000, "values": [[1], [2], [3], [4]]},
      "decoder.1": {"rule": "t5", "num_buckets": 4, "max_distance": 10000000, "values": [[1], [2], [3], [4]]}}})";
  RegistryOptions options = Within(INT64_MAX, INT64_MAX);
  options.model_root = root;
  Registry unlimited(options);
  ASSERT_TRUE(unlimited.Load("", "far.json").ok());
  const std::int64_t bytes = unlimited.table_bytes();
  EXPECT_GT(bytes, 2 * 4 * 3000);
  EXPECT_TRUE(unlimited.Reload("far").ok());
  EXPECT_EQ(unlimited.table_bytes(), bytes) << "the version before is gone";

  options.max_model_bytes = bytes - 1;  // the second table is one too many
  Registry limited(options);
  const absl::Status refused = limited.Load("", "far.json").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("max_model_bytes"));
  EXPECT_EQ(limited.table_bytes(), 0);

  options.max_model_bytes = bytes;
  options.max_total_model_bytes = bytes + bytes / 2;
  Registry full(options);
  ASSERT_TRUE(full.Load("", "far.json").ok());
  EXPECT_EQ(full.Reload("far").status().code(), absl::StatusCode::kResourceExhausted) << "two versions do not fit";
  EXPECT_TRUE(full.Find("far").ok()) << "the version before stays";
  EXPECT_EQ(full.table_bytes(), bytes);
  std::filesystem::remove_all(root);
}

// Uploads, replacements and unloads by many threads. Without a limit, as many go in as are sent.
std::int64_t MostAtOnce(Registry& registry) {
  std::atomic<bool> done = false;
  std::atomic<std::int64_t> most = 0;
  std::thread watch([&] {
    while (!done) {
      const std::int64_t now = registry.table_bytes();
      if (now > most) most = now;
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&registry, t] {
      for (int i = 0; i < 20; ++i) {
        Upload(registry, absl::StrCat("m", t % 2), i, /*replace=*/true).IgnoreError();
        if (i % 10 == 9) registry.Unload(absl::StrCat("m", t % 2)).IgnoreError();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 12; ++i) Upload(registry, "last", i).IgnoreError();
  done = true;
  watch.join();
  return std::max(most.load(), registry.table_bytes());
}

TEST(ModelMemoryTest, UploadsAtOnceStayWithinTheLimit) {
  constexpr std::int64_t kLimit = 10 * kTableBytes;
  {
    Registry registry(Within(INT64_MAX, kLimit));
    EXPECT_LE(MostAtOnce(registry), kLimit);
    for (const auto& model : registry.List("", 10)) EXPECT_TRUE(registry.Unload(model->name()).ok());
    EXPECT_EQ(registry.table_bytes(), 0);
  }
  Registry unlimited(Within(INT64_MAX, INT64_MAX));
  EXPECT_GT(MostAtOnce(unlimited), kLimit) << "these uploads exceed it where there is none";
}

}  // namespace
}  // namespace attnd::model
