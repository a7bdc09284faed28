#include "model/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace attnd::model {
namespace {

namespace fs = std::filesystem;
using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::FieldsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

std::string BookWith(float first) {
  return R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [[)" + std::to_string(first) +
         "], [2], [3], [4]]}}}";
}

bias::BiasTable Table(bool bidirectional, std::int64_t heads = 1) {
  auto table = bias::BiasTable::Create(
      heads, bias::T5Rule{4, 5, bidirectional, std::vector<float>(static_cast<std::size_t>(4 * heads), 1.0F)});
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

class RegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = fs::path(::testing::TempDir()) / ("registry_test_" + name);
    fs::remove_all(root_);
    fs::create_directories(root_);
    options_.model_root = root_;
    options_.log = [this](const std::string& line) { log_.push_back(line); };
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::trunc) << text;
  }

  fs::path root_;
  RegistryOptions options_;
  std::vector<std::string> log_;
};

std::vector<std::string> Names(const Registry& registry, std::string_view after = "", std::int64_t count = 100) {
  std::vector<std::string> names;
  for (const auto& model : registry.List(after, count)) names.push_back(model->name());
  return names;
}

float First(const Model& model) { return model.FindTable("")->table->Value(0, 0); }

TEST_F(RegistryTest, EmbeddedModels) {
  Registry registry(options_);
  ASSERT_TRUE(registry.AddEmbedded().ok());
  EXPECT_THAT(Names(registry), ElementsAre("book", "t5-tiny"));
  const auto book = registry.Find("book");
  ASSERT_TRUE(book.ok()) << book.status();
  EXPECT_EQ((*book)->version(), 1U);
  EXPECT_EQ((*book)->source(), "embedded");
  EXPECT_EQ((*book)->content_hash().size(), 64U);
  EXPECT_EQ(registry.Reload("book").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry.AddEmbedded().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(RegistryTest, LoadsFindsAndUnloads) {
  Write("folder/a.json", BookWith(1));
  Registry registry(options_);
  const auto loaded = registry.Load("", "./folder//a.json");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->name(), "a");
  EXPECT_EQ((*loaded)->source(), "folder/a.json");
  EXPECT_EQ((*loaded)->version(), 1U);
  ASSERT_TRUE(registry.Load("other", "folder/a.json").ok());
  EXPECT_EQ((*registry.Find("other"))->content_hash(), (*loaded)->content_hash());

  EXPECT_EQ(registry.Find("a", 1).value(), *loaded);
  EXPECT_EQ(registry.Find("a", 2).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry.Load("a", "folder/a.json").status().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(registry.Unload("a").ok());
  EXPECT_EQ(registry.Find("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry.Unload("a").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(First(**loaded), 1.0F) << "who holds it keeps it";
  // Its version is not used again.
  EXPECT_EQ((*registry.Load("a", "folder/a.json"))->version(), 2U);
}

TEST_F(RegistryTest, RefusesBadNamesAndPaths) {
  Write("a.json", BookWith(1));
  Write("b.txt", "text");
  fs::create_symlink("/etc", root_ / "etc");
  Registry registry(options_);
  struct Case {
    std::string name;
    std::string path;
    absl::StatusCode code;
  };
  const Case cases[] = {
      {"a/b/c", "a.json", absl::StatusCode::kInvalidArgument},
      {"..", "a.json", absl::StatusCode::kInvalidArgument},
      {".a", "a.json", absl::StatusCode::kInvalidArgument},
      {std::string("a\0b", 3), "a.json", absl::StatusCode::kInvalidArgument},
      {std::string(129, 'a'), "a.json", absl::StatusCode::kInvalidArgument},
      {"m", "", absl::StatusCode::kInvalidArgument},
      {"m", "..", absl::StatusCode::kPermissionDenied},
      {"m", "../a.json", absl::StatusCode::kPermissionDenied},
      {"m", "/etc/passwd", absl::StatusCode::kPermissionDenied},
      {"m", "etc", absl::StatusCode::kPermissionDenied},
      {"m", "etc/passwd", absl::StatusCode::kPermissionDenied},
      {"m", std::string("a.json\0/../x", 12), absl::StatusCode::kInvalidArgument},
      {"m", "none.json", absl::StatusCode::kNotFound},
      {"m", "a.json/x", absl::StatusCode::kNotFound},
      {"m", "b.txt", absl::StatusCode::kInvalidArgument},
      {"m", std::string(5000, 'x'), absl::StatusCode::kInvalidArgument},
  };
  for (const Case& c : cases) {
    const absl::Status status = registry.Load(c.name, c.path).status();
    EXPECT_EQ(status.code(), c.code) << c.name << " " << c.path << ": " << status;
    EXPECT_FALSE(status.message().empty());
  }
  for (const std::string& name : {std::string(), std::string("a/b/c"), std::string("\0", 1)}) {
    EXPECT_EQ(registry.Find(name).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(registry.Unload(name).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(registry.Reload(name).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(registry.Upload(name, "", Table(false), false).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(Names(registry), ElementsAre());
  EXPECT_TRUE(registry.Load("m", "a.json").ok()) << "and goes on";
}

TEST_F(RegistryTest, WithoutARootNothingIsLoaded) {
  Registry registry(RegistryOptions{});
  EXPECT_EQ(registry.Load("m", "a.json").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry.LoadRoot().value(), 0);
}

TEST_F(RegistryTest, ReloadReplacesAndAFailedOneKeepsTheOld) {
  Write("a.json", BookWith(1));
  Registry registry(options_);
  const auto first = registry.Load("", "a.json");
  ASSERT_TRUE(first.ok()) << first.status();
  Write("a.json", BookWith(5));
  const auto second = registry.Reload("a");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->version(), 2U);
  EXPECT_EQ(First(**second), 5.0F);
  EXPECT_EQ(First(**first), 1.0F);

  Write("a.json", BookWith(7) + "x");
  EXPECT_EQ(registry.Reload("a").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(registry.Find("a").value(), *second);
  fs::remove(root_ / "a.json");
  EXPECT_EQ(registry.Reload("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry.Find("a").value(), *second);
  Write("a.json", BookWith(9));
  EXPECT_EQ((*registry.Reload("a"))->version(), 3U);
  EXPECT_EQ(registry.Reload("none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RegistryTest, LoadsEverythingUnderTheRootAndLogsTheRest) {
  Write("good.json", BookWith(1));
  Write("bad.json", "{");
  Write("README.md", "not a model");
  Write(".hidden.json", BookWith(1));
  Write("empty-folder/x", "");
  Write("deep/er/a.json", BookWith(1));
  Write("bad name.json", BookWith(1));
  fs::create_directories(root_ / "t5");
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy(fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / "t5_fp32" / file, root_ / "t5" / file);
  }
  fs::copy(fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / "t5_f16_full.gguf", root_ / "t5.gguf");  // the folder's name
  fs::create_symlink("/etc", root_ / "out");
  Registry registry(options_);
  EXPECT_EQ(registry.LoadRoot().value(), 2);
  EXPECT_THAT(Names(registry), ElementsAre("good", "t5"));
  EXPECT_THAT(log_,
              UnorderedElementsAre(
                  AllOf(HasSubstr("not loaded \"bad.json\""), HasSubstr("not strict JSON")),
                  AllOf(HasSubstr("skipped \"README.md\""), HasSubstr("expected a Hugging Face checkpoint folder")),
                  AllOf(HasSubstr("not loaded \"empty-folder\""), HasSubstr("no config.json")),
                  AllOf(HasSubstr("not loaded \"deep\""), HasSubstr("no config.json")),
                  AllOf(HasSubstr("not loaded \"bad name.json\""), HasSubstr("model: expected 1 to 128 letters")),
                  AllOf(HasSubstr("not loaded \"t5.gguf\""), HasSubstr("no loaded model has")),
                  AllOf(HasSubstr("not loaded \"out\""), HasSubstr("leads out of the model root"))));
}

TEST_F(RegistryTest, WhatTheStartCouldNotLoadIsListedUntilItIsLoaded) {
  Write("good.json", BookWith(1));
  Write("bad.json", "{");
  Write("README.md", "not a model");
  fs::create_symlink("nothing", root_ / "link");
  fs::create_symlink("circle", root_ / "circle");
  ASSERT_EQ(mkfifo((root_ / "fifo.json").c_str(), 0600), 0);
  ASSERT_EQ(mkfifo((root_ / "fifo").c_str(), 0600), 0);
  fs::create_directories(root_ / "lost+found");
  Registry registry(options_);
  EXPECT_EQ(registry.LoadRoot().value(), 1);
  EXPECT_THAT(registry.Failed(), ElementsAre(FieldsAre("bad", "bad.json", HasSubstr("not strict JSON")),
                                             FieldsAre("circle", "circle", "Too many levels of symbolic links"),
                                             FieldsAre("fifo", "fifo.json", "expected a regular file or a folder"),
                                             FieldsAre("link", "link", "a link to what is not there")));
  EXPECT_THAT(std::string(registry.Find("bad").status().message()), HasSubstr("could not be loaded at the start"));
  EXPECT_THAT(std::string(registry.Find("none").status().message()), Not(HasSubstr("at the start")));
  Write("bad.json", BookWith(2));
  ASSERT_TRUE(registry.Load("", "bad.json").ok());
  fs::remove(root_ / "link");
  ASSERT_TRUE(registry.Load("link", "good.json").ok()) << "another file under that name";
  EXPECT_THAT(registry.Failed(), ElementsAre(FieldsAre("circle", _, _), FieldsAre("fifo", _, _)));
  fs::remove(root_ / "circle");
  Write("circle/config.json", "{}");
  EXPECT_FALSE(registry.Load("elsewhere", "circle").ok());
  EXPECT_THAT(registry.Failed(), ElementsAre(FieldsAre("circle", _, _), FieldsAre("fifo", _, _))) << "failed again";
  fs::remove(root_ / "fifo.json");
  Write("fifo.json", BookWith(3));
  ASSERT_TRUE(registry.Load("elsewhere", "fifo.json").ok());
  EXPECT_THAT(registry.Failed(), ElementsAre(FieldsAre("circle", _, _))) << "the file, under another name";
}

TEST_F(RegistryTest, ARootThatCannotBeReadIsAnError) {
  Write("file", "text");
  for (const char* path : {"none", "file"}) {
    options_.model_root = root_ / path;
    Registry registry(options_);
    EXPECT_EQ(registry.LoadRoot().status().code(), absl::StatusCode::kNotFound) << path;
    EXPECT_EQ(registry.Load("m", "a.json").status().code(), absl::StatusCode::kFailedPrecondition);
  }
}

TEST_F(RegistryTest, ARootThatIsItselfACheckpointIsLoaded) {
  const fs::path golden = fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / "t5_fp32";
  fs::create_directories(root_ / "mine" / "runs");
  fs::copy(golden, root_ / "mine" / "checkpoint-500");
  for (const char* file : {"config.json", "model.safetensors"}) fs::copy(golden / file, root_ / "mine" / file);
  options_.model_root = (root_ / "mine").string() + "/";
  Registry registry(options_);
  EXPECT_EQ(registry.LoadRoot().value(), 2);
  EXPECT_THAT(Names(registry), ElementsAre("checkpoint-500", "mine"));
  EXPECT_THAT(registry.Failed(), ElementsAre());
  EXPECT_EQ((*registry.Reload("mine"))->version(), 2U);
}

TEST_F(RegistryTest, CheckpointFilesThatLeadOutOfTheRootAreRefused) {
  fs::create_directories(root_ / "t5");
  fs::create_directories(root_ / "blobs");
  const fs::path golden = fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / "t5_fp32";
  fs::copy(golden / "config.json", root_ / "t5" / "config.json");
  fs::create_symlink(golden / "model.safetensors", root_ / "t5" / "model.safetensors");
  Registry registry(options_);
  EXPECT_EQ(registry.Load("", "t5").status().code(), absl::StatusCode::kPermissionDenied);
  // Links between folders of the root, as Hugging Face's cache has them, are followed.
  fs::copy(golden / "model.safetensors", root_ / "blobs" / "1234");
  fs::remove(root_ / "t5" / "model.safetensors");
  fs::create_symlink("../blobs/1234", root_ / "t5" / "model.safetensors");
  const auto loaded = registry.Load("", "t5");
  EXPECT_TRUE(loaded.ok()) << loaded.status();
}

TEST_F(RegistryTest, ListsPages) {
  Registry registry(options_);
  for (const char* name : {"d", "a", "c", "b"}) ASSERT_TRUE(registry.Upload(name, "", Table(false), false).ok());
  EXPECT_THAT(Names(registry, "", 2), ElementsAre("a", "b"));
  EXPECT_THAT(Names(registry, "b", 2), ElementsAre("c", "d"));
  EXPECT_THAT(Names(registry, "bb", 1), ElementsAre("c"));
  EXPECT_THAT(Names(registry, "d", 2), ElementsAre());
}

TEST_F(RegistryTest, Uploads) {
  Registry registry(options_);
  const auto first = registry.Upload("m", "", Table(false), false);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->source(), "upload");
  EXPECT_EQ((*first)->contents().format, "upload");
  EXPECT_TRUE((*first)->FindTable("decoder").ok());
  const auto second = registry.Upload("m", "", Table(true), false);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->version(), 2U);
  EXPECT_EQ((*second)->contents().tables.size(), 2U);
  EXPECT_EQ((*first)->contents().tables.size(), 1U);

  EXPECT_EQ(registry.Upload("m", "decoder", Table(false), false).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ((*registry.Upload("m", "decoder", Table(false), true))->version(), 3U);
  EXPECT_EQ(registry.Upload("m", "decoder.0", Table(false, 2), false).status().code(),
            absl::StatusCode::kInvalidArgument)
      << "another number of heads";
  EXPECT_EQ(registry.Upload("m", "cross", Table(false), false).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(registry.Reload("m").status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(registry.AddEmbedded().ok());
  EXPECT_EQ(registry.Upload("book", "encoder", Table(true), true).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(RegistryTest, AFileNamedUploadIsNoUpload) {
  fs::create_directories(root_ / "upload");
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy(fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / "t5_fp32" / file, root_ / "upload" / file);
  }
  Registry registry(options_);
  ASSERT_TRUE(registry.Load("", "upload").ok());
  EXPECT_EQ(registry.Upload("upload", "decoder.1", Table(false, 4), true).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(registry.Reload("upload").ok());
}

TEST_F(RegistryTest, LimitsAreNamed) {
  Write("a.json", BookWith(1));
  options_.max_models = 1;
  options_.max_table_values = 5;
  Registry registry(options_);
  ASSERT_TRUE(registry.Load("", "a.json").ok());
  absl::Status status = registry.Load("b", "a.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 1 models (max_models)"));
  EXPECT_EQ(registry.Upload("b", "", Table(false), false).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(registry.Unload("a").ok());
  EXPECT_EQ(registry.Upload("b", "", Table(false, 2), false).status().code(), absl::StatusCode::kResourceExhausted);

  options_.max_model_file_bytes = 10;
  Registry small_files(options_);
  status = small_files.Load("", "a.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_model_file_bytes, 10"));
}

}  // namespace
}  // namespace attnd::model
