// Loads, reloads, unloads, uploads and finds from many threads at once; ThreadSanitizer watches under its preset.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/registry.h"

namespace attnd::model {
namespace {

namespace fs = std::filesystem;

// A model whose table says one number everywhere, so that a mixture of two would show.
std::string Uniform(int value) {
  const std::string row = absl::StrCat("[", value, ", ", value, "]");
  return R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [)" + row + ", " + row + ", " +
         row + ", " + row + "]}}}";
}

// Replaces a file whole, as a deployment does.
void Replace(const fs::path& path, const std::string& text) {
  const fs::path beside = path.string() + ".new";
  std::ofstream(beside, std::ios::trunc) << text;
  fs::rename(beside, path);
}

void ExpectUniform(const Model& model) {
  const bias::BiasTable& table = *model.FindTable("")->table;
  const float value = table.Value(0, 0);
  for (std::int64_t offset = 0; offset < 6; ++offset) {
    EXPECT_EQ(table.Value(0, offset), value);
    EXPECT_EQ(table.Value(1, offset), value);
  }
}

class RegistryThreadsTest : public ::testing::Test {
 protected:
  static constexpr int kRounds = 200;

  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = fs::path(::testing::TempDir()) / ("registry_threads_test_" + name);
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  RegistryOptions Options() const {
    RegistryOptions options;
    options.model_root = root_;
    return options;
  }

  fs::path root_;
};

TEST_F(RegistryThreadsTest, SnapshotsAreWholeAndVersionsGrow) {
  Replace(root_ / "m.json", Uniform(0));
  Registry registry(Options());
  ASSERT_TRUE(registry.Load("", "m.json").ok());
  const std::shared_ptr<const Model> held = *registry.Find("m");
  std::atomic<bool> done = false;
  std::atomic<int> reloaded = 0;

  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {  // those who read
    threads.emplace_back([&] {
      std::uint64_t last = 0;
      while (!done) {
        const auto model = registry.Find("m");
        if (!model.ok()) continue;  // between an unload and a load
        EXPECT_GE((*model)->version(), last);
        last = (*model)->version();
        ExpectUniform(**model);
        EXPECT_LE(registry.List("", 10).size(), 2U);
      }
    });
  }
  std::vector<std::thread> writers;
  for (int t = 0; t < 2; ++t) {
    writers.emplace_back([&] {
      // All rounds may fall into the time between an unload and a load; then until one succeeds.
      for (int i = 0; i < kRounds || reloaded == 0; ++i) {
        const auto model = registry.Reload("m");
        if (model.ok()) ++reloaded;
      }
    });
  }
  writers.emplace_back([&] {
    for (int i = 1; i <= kRounds; ++i) Replace(root_ / "m.json", i % 10 == 5 ? "broken" : Uniform(i));
  });
  writers.emplace_back([&] {
    for (int i = 0; i < kRounds; ++i) {
      if (i % 20 != 0) continue;
      // The two may meet a broken file or each other's result; what counts is that the name can always be loaded again.
      if (registry.Unload("m").ok()) {
        EXPECT_EQ(registry.Find("m", held->version()).status().code(), absl::StatusCode::kNotFound);
      }
      while (!registry.Load("m", "m.json").ok()) {
        if (registry.Find("m").ok()) break;
        std::this_thread::yield();
      }
    }
  });
  for (std::thread& writer : writers) writer.join();
  done = true;
  for (std::thread& thread : threads) thread.join();

  ExpectUniform(*held);
  EXPECT_EQ(held->version(), 1U);
  EXPECT_EQ(held->FindTable("")->table->Value(0, 0), 0.0F);
  EXPECT_GT(reloaded, 0);
}

TEST_F(RegistryThreadsTest, TheLastReadingWins) {
  Replace(root_ / "m.json", Uniform(0));
  Registry registry(Options());
  ASSERT_TRUE(registry.Load("", "m.json").ok());
  for (int round = 1; round <= 20; ++round) {
    Replace(root_ / "m.json", Uniform(round));
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) threads.emplace_back([&] { EXPECT_TRUE(registry.Reload("m").ok()); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ((*registry.Find("m"))->FindTable("")->table->Value(0, 0), static_cast<float>(round));
  }
}

TEST_F(RegistryThreadsTest, OneOfManyLoadsOfANameSucceeds) {
  Replace(root_ / "m.json", Uniform(1));
  Registry registry(Options());
  for (int round = 1; round <= 20; ++round) {
    std::atomic<int> loaded = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        const auto model = registry.Load("m", "m.json");
        if (model.ok()) {
          ++loaded;
        } else {
          EXPECT_EQ(model.status().code(), absl::StatusCode::kAlreadyExists);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(loaded, 1);
    EXPECT_EQ((*registry.Find("m"))->version(), static_cast<std::uint64_t>(round));
    EXPECT_TRUE(registry.Unload("m").ok());
  }
}

TEST_F(RegistryThreadsTest, NoUploadIsLost) {
  Registry registry(Options());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&registry, t] {
      for (int i = 0; i < 25; ++i) {
        auto table = bias::BiasTable::Create(1, bias::AlibiRule{false, {1.0F}});
        ASSERT_TRUE(table.ok());
        const auto model = registry.Upload("m", "decoder." + std::to_string(25 * t + i), *std::move(table), false);
        EXPECT_TRUE(model.ok()) << model.status();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto model = registry.Find("m");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->contents().tables.size(), 100U);
  EXPECT_EQ((*model)->version(), 100U);
}

}  // namespace
}  // namespace attnd::model
