// The Hub's cache as a model root: made here as huggingface_hub lays it out.

#include "model/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "model/registry.h"

namespace attnd::model {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::FieldsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(HubRepositoryTest, Names) {
  EXPECT_EQ(HubRepository("models--google--t5-v1_1-small"), "google/t5-v1_1-small");
  EXPECT_EQ(HubRepository("hub/models--t5-small"), "t5-small");
  EXPECT_EQ(HubRepository("/a/models--o--n/snapshots/0123"), "o/n");
  for (const char* path : {"", "t5", "models-t5", "datasets--a--b", "models--o--n/blobs/0123", "snapshots/0123"}) {
    EXPECT_EQ(HubRepository(path), "") << path;
  }
}

class HubCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    hub_ = fs::path(::testing::TempDir()) /
           (std::string("hub_cache_test_") + ::testing::UnitTest::GetInstance()->current_test_info()->name()) / "hub";
    fs::remove_all(hub_);
  }
  void TearDown() override { fs::remove_all(hub_.parent_path()); }

  void AddSnapshot(const std::string& repository, const std::string& commit, const std::string& golden) const {
    const fs::path folder = hub_ / repository;
    fs::create_directories(folder / "blobs");
    fs::create_directories(folder / "snapshots" / commit);
    for (const std::string file : {"config.json", "model.safetensors"}) {
      fs::copy(fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / golden / file, folder / "blobs" / (commit + file));
      fs::create_symlink("../../blobs/" + commit + file, folder / "snapshots" / commit / file);
    }
  }
  void SetMain(const std::string& repository, const std::string& commit) const {
    fs::create_directories(hub_ / repository / "refs");
    std::ofstream(hub_ / repository / "refs" / "main") << commit;
  }
  // Loads what is in `root`.
  void Start(const fs::path& root) {
    RegistryOptions options;
    options.model_root = root;
    registry_ = std::make_unique<Registry>(options);
    ASSERT_TRUE(registry_->LoadRoot().ok());
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& model : registry_->List("", 100)) names.push_back(model->name());
    return names;
  }
  std::string Architecture(const std::string& name) const {
    const auto model = registry_->Find(name);
    return model.ok() ? (*model)->contents().architecture : std::string(model.status().message());
  }

  fs::path hub_;
  std::unique_ptr<Registry> registry_;
};

TEST_F(HubCacheTest, RepositoriesAreLoadedUnderTheirNames) {
  AddSnapshot("models--google--t5", "aaa", "t5_fp32");
  SetMain("models--google--t5", "aaa\n");
  AddSnapshot("models--t5-small", "bbb", "t5_fp32");  // fetched by its commit: no refs/main
  AddSnapshot("models--org--both", "old", "t5_fp32");
  AddSnapshot("models--org--both", "new", "umt5_fp32");
  SetMain("models--org--both", "new");
  fs::create_directories(hub_ / ".locks");
  fs::create_directories(hub_ / "datasets--a--b" / "snapshots");
  std::ofstream(hub_ / "version.txt") << "1";
  Start(hub_);
  EXPECT_THAT(Names(), ElementsAre("google/t5", "org/both", "t5-small"));
  EXPECT_EQ(Architecture("org/both"), "umt5");
  EXPECT_THAT(registry_->Failed(), IsEmpty());
  // What refs/main names by then.
  SetMain("models--org--both", "old");
  ASSERT_TRUE(registry_->Reload("org/both").ok());
  EXPECT_EQ(Architecture("org/both"), "t5");
}

TEST_F(HubCacheTest, WhatCannotBeChosenIsListedWithWhatToDo) {
  AddSnapshot("models--org--two", "c1", "t5_fp32");
  AddSnapshot("models--org--two", "c2", "umt5_fp32");
  AddSnapshot("models--org--lost", "d1", "t5_fp32");
  SetMain("models--org--lost", "d2");
  AddSnapshot("models--org--odd", "e1", "t5_fp32");
  SetMain("models--org--odd", "../../models--org--two/snapshots/c1");
  fs::create_directories(hub_ / "models--org--empty" / "snapshots");
  Start(hub_);
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_THAT(registry_->Failed(),
              ElementsAre(FieldsAre("org/empty", "models--org--empty", HasSubstr("snapshots/ is empty")),
                          FieldsAre("org/lost", "models--org--lost", HasSubstr("refs/main names commit \"d2\"")),
                          FieldsAre("org/odd", "models--org--odd", HasSubstr("refs/main: expected a commit")),
                          FieldsAre("org/two", "models--org--two",
                                    HasSubstr("has 2 snapshots and no refs/main to say which: load one by its path, "
                                              "snapshots/COMMIT of c1, c2"))));
  const auto chosen = registry_->Load("", "models--org--two/snapshots/c2");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ((*chosen)->name(), "org/two");
  EXPECT_EQ(registry_->Failed().size(), 3U);
}

TEST_F(HubCacheTest, ARepositoryOrASnapshotMayBeTheRoot) {
  AddSnapshot("models--google--t5", "aaa", "t5_fp32");
  AddSnapshot("models--google--t5", "bbb", "umt5_fp32");
  SetMain("models--google--t5", "aaa");
  const fs::path repository = hub_ / "models--google--t5";
  Start(repository);
  EXPECT_THAT(Names(), ElementsAre("google/t5"));
  EXPECT_EQ(Architecture("google/t5"), "t5");
  EXPECT_TRUE(registry_->Reload("google/t5").ok());

  Start(repository / "snapshots" / "bbb");
  EXPECT_THAT(Names(), ElementsAre("google/t5"));
  EXPECT_EQ(Architecture("google/t5"), "umt5");
  EXPECT_TRUE(registry_->Reload("google/t5").ok());
  EXPECT_EQ(registry_->Load("x", "../aaa").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(registry_->Load("x", "refs/main").status().code(), absl::StatusCode::kNotFound);

  // A folder of snapshots is no cache, and a snapshot elsewhere has lost its blobs.
  Start(repository / "snapshots");
  ASSERT_EQ(registry_->Failed().size(), 2U);
  EXPECT_THAT(registry_->Failed()[0].reason, HasSubstr("let the model root be the cache, or its folder models--*"));
  fs::rename(repository / "snapshots" / "bbb", hub_ / "moved");
  Start(hub_ / "moved");
  ASSERT_EQ(registry_->Failed().size(), 2U);
  EXPECT_THAT(registry_->Failed()[0].reason, HasSubstr("a link to what is not there (files of a snapshot"));
  // The folder above the cache.
  Start(hub_.parent_path());
  ASSERT_EQ(registry_->Failed().size(), 1U);
  EXPECT_THAT(registry_->Failed()[0].reason, HasSubstr("the folder is the Hub's cache"));
}

}  // namespace
}  // namespace attnd::model
