// Each way out of loading, reloading and uploading, and of opening what a folder holds: no descriptor stays open and no
// memory stays counted, whichever step fails.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "files/safetensors_writer.h"
#include "gguf_builder.h"
#include "model/gguf_tables.h"
#include "model/hf_checkpoint.h"
#include "model/registry.h"
#include "wait.h"

namespace attnd::model {
namespace {

namespace fs = std::filesystem;

constexpr char kGood[] =
    R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [[1], [2], [3], [4]]}}})";
// Its second table is broken, after the first one is read.
constexpr char kBroken[] =
    R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [[1], [2], [3], [4]]},
                               "encoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [[1, 2], [2], [3], [4]]}}})";

class WaysOutTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / "ways_out_test";
    fs::remove_all(root_);
    fs::create_directories(root_ / "folder");
    fs::create_directories(root_ / "checkpoint");
    const fs::path golden = fs::path(ATTND_GOLDEN_DIR) / "checkpoints" / "t5_fp32";
    for (const char* file : {"config.json", "model.safetensors"}) fs::copy(golden / file, root_ / "checkpoint" / file);
    fs::copy(root_ / "checkpoint", root_ / "cut");
    fs::resize_file(root_ / "cut" / "model.safetensors", fs::file_size(root_ / "cut" / "model.safetensors") - 1);
    Write("good.json", kGood);
    Write("broken.json", kBroken);
    Write("no_model", "text");
    GgufBuilder builder;
    Write("good.gguf", builder.Build());
    builder.tensors[1].dims = {1, 4};
    Write("broken.gguf", builder.Build());  // heads differ, after the first table is read
    fs::create_symlink("/etc", root_ / "out");
    fs::create_symlink("nothing", root_ / "dangling");
    fs::create_symlink("loop", root_ / "loop");
    ASSERT_EQ(mkfifo((root_ / "fifo").c_str(), 0600), 0);
    options_.model_root = root_;
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    std::ofstream(root_ / path, std::ios::trunc | std::ios::binary) << text;
  }

  fs::path root_;
  RegistryOptions options_;
};

TEST_F(WaysOutTest, OfLoad) {
  struct Way {
    std::string path;
    absl::StatusCode code;
    std::function<void(RegistryOptions&)> limit = [](RegistryOptions&) {};
  };
  const auto values = [](RegistryOptions& options) { options.max_table_values = 3; };
  const auto bytes = [](RegistryOptions& options) { options.max_model_file_bytes = 10; };
  const auto model = [](RegistryOptions& options) { options.max_model_bytes = 1100; };
  const auto total = [](RegistryOptions& options) { options.max_total_model_bytes = 1100; };
  const auto models = [](RegistryOptions& options) { options.max_models = 0; };
  const Way ways[] = {
      {"good.json", absl::StatusCode::kOk},
      {"good.gguf", absl::StatusCode::kOk},
      {"checkpoint", absl::StatusCode::kOk},
      {"broken.json", absl::StatusCode::kInvalidArgument},
      {"broken.gguf", absl::StatusCode::kInvalidArgument},
      {"cut", absl::StatusCode::kInvalidArgument},
      {"folder", absl::StatusCode::kInvalidArgument},
      {"no_model", absl::StatusCode::kInvalidArgument},
      {"none", absl::StatusCode::kNotFound},
      {"good.json/none", absl::StatusCode::kNotFound},
      {"out", absl::StatusCode::kPermissionDenied},
      {"out/passwd", absl::StatusCode::kPermissionDenied},
      {"dangling", absl::StatusCode::kInvalidArgument},
      {"loop", absl::StatusCode::kInvalidArgument},
      {"fifo", absl::StatusCode::kInvalidArgument},
      {"good.json", absl::StatusCode::kResourceExhausted, values},
      {"good.gguf", absl::StatusCode::kResourceExhausted, values},
      {"checkpoint", absl::StatusCode::kResourceExhausted, values},
      {"good.json", absl::StatusCode::kResourceExhausted, bytes},
      {"good.gguf", absl::StatusCode::kResourceExhausted, bytes},
      {"checkpoint", absl::StatusCode::kResourceExhausted, bytes},
      {"good.gguf", absl::StatusCode::kResourceExhausted, model},
      {"checkpoint", absl::StatusCode::kResourceExhausted, model},
      {"good.gguf", absl::StatusCode::kResourceExhausted, total},
      {"checkpoint", absl::StatusCode::kResourceExhausted, total},
      {"good.json", absl::StatusCode::kResourceExhausted, models},
  };
  for (const Way& way : ways) {
    SCOPED_TRACE(way.path);
    RegistryOptions options = options_;
    way.limit(options);
    Registry registry(options);
    const std::size_t descriptors = test::OpenDescriptors();
    {
      const auto loaded = registry.Load("m", way.path);
      EXPECT_EQ(loaded.status().code(), way.code) << loaded.status();
      EXPECT_EQ(registry.table_bytes() > 0, loaded.ok());
    }
    EXPECT_EQ(test::OpenDescriptors(), descriptors);
    if (way.code != absl::StatusCode::kOk) {
      EXPECT_EQ(registry.table_bytes(), 0);
      EXPECT_TRUE(registry.List("", 10).empty());
      continue;
    }
    // The same way out of a reload, in place of the file that was loaded.
    const std::int64_t before = registry.table_bytes();
    for (const std::string other : {"", "out", "dangling", "loop", "fifo", "folder", "no_model"}) {
      SCOPED_TRACE(absl::StrCat("reload of ", other));
      fs::rename(root_ / way.path, root_ / "aside");
      if (!other.empty()) fs::rename(root_ / other, root_ / way.path);
      EXPECT_FALSE(registry.Reload("m").ok());
      EXPECT_EQ(registry.table_bytes(), before) << "the version before stays, and nothing else";
      EXPECT_EQ((*registry.Find("m"))->version(), 1U);
      EXPECT_EQ(test::OpenDescriptors(), descriptors);
      if (!other.empty()) fs::rename(root_ / way.path, root_ / other);
      fs::rename(root_ / "aside", root_ / way.path);
    }
    EXPECT_TRUE(registry.Reload("m").ok());
    EXPECT_EQ(registry.table_bytes(), before);
    EXPECT_TRUE(registry.Unload("m").ok());
    EXPECT_EQ(registry.table_bytes(), 0);
    EXPECT_EQ(test::OpenDescriptors(), descriptors);
  }
}

TEST_F(WaysOutTest, OfOpeningARoot) {
  const std::size_t descriptors = test::OpenDescriptors();
  for (const char* path : {"", "folder", "none", "good.json", "checkpoint", "dangling", "loop", "fifo"}) {
    { const auto root = ModelRoot::Open(root_ / path); }
    { const auto folder = Folder::OpenRoot(root_ / path); }
    options_.model_root = root_ / path;
    Registry registry(options_);
    registry.LoadRoot().status().IgnoreError();
    EXPECT_EQ(test::OpenDescriptors(), descriptors) << path;
  }
}

TEST_F(WaysOutTest, OfAFolder) {
  const auto root = Folder::OpenRoot(root_);
  ASSERT_TRUE(root.ok()) << root.status();
  const std::size_t descriptors = test::OpenDescriptors();
  for (const char* path : {"good.json", "folder", "none", "good.json/x", "out", "dangling", "loop", "fifo", "."}) {
    { const auto entry = root->Open(path); }
    { const auto file = root->OpenFile(path); }
    root->KindOf(path);
    EXPECT_TRUE(root->List().ok());
    EXPECT_EQ(test::OpenDescriptors(), descriptors) << path;
  }
  Folder moved = *Folder::OpenRoot(root_);
  { const Folder last = std::move(moved); }
  EXPECT_EQ(test::OpenDescriptors(), descriptors) << "a folder closes what it was moved";
}

// A version's own count: what one of the two limits refuses counts towards neither.
TEST(ModelMemoryWaysOutTest, ARefusalChangesNothing) {
  const ModelMemory memory(100, 150);
  const ModelMemory::Version a = memory.NewVersion();
  const ModelMemory::Version b = memory.NewVersion();
  bias::TableTicket first = a.NewTicket();
  EXPECT_TRUE(first.GrowTo(100).ok()) << "exactly the limit of a model";
  EXPECT_EQ(first.GrowTo(101).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(memory.used_bytes(), 100);
  bias::TableTicket second = b.NewTicket();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(second.GrowTo(51).code(), absl::StatusCode::kResourceExhausted) << "one more than there is for all";
    EXPECT_EQ(memory.used_bytes(), 100);
  }
  EXPECT_TRUE(second.GrowTo(50).ok()) << "exactly the limit of all models";
  EXPECT_EQ(memory.used_bytes(), 150);
  first = bias::TableTicket();
  EXPECT_EQ(memory.used_bytes(), 50) << "given back";
  EXPECT_TRUE(second.GrowTo(100).ok()) << "what was refused before does not count";
  EXPECT_EQ(second.GrowTo(101).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(memory.used_bytes(), 100);
  bias::TableTicket third = b.NewTicket();
  EXPECT_EQ(third.GrowTo(1).code(), absl::StatusCode::kResourceExhausted) << "tables of one version count together";
  bias::TableTicket other = memory.NewVersion().NewTicket();
  EXPECT_TRUE(other.GrowTo(50).ok());
  EXPECT_EQ(memory.used_bytes(), 150);
  for (const auto& [held, more, fits] : {std::tuple{40, 60, true}, {40, 61, false}, {100, 0, true}, {100, 1, false}}) {
    EXPECT_EQ(memory.CheckModel(held, more).ok(), fits) << held << " and " << more;
  }
}

// Notes the farthest byte that was read.
class NotedFile final : public files::ByteSource {
 public:
  NotedFile(const std::string& bytes, std::int64_t& read) : bytes_(bytes), read_(read) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(bytes_.size()); }
  absl::Status ReadAt(std::int64_t offset, absl::Span<std::byte> out) const override {
    read_ += static_cast<std::int64_t>(out.size());
    return files::OpenMemory({reinterpret_cast<const std::byte*>(bytes_.data()), bytes_.size()})->ReadAt(offset, out);
  }

 private:
  const std::string& bytes_;
  std::int64_t& read_;
};

// The memory limit refuses a table before its values are read, so a file cannot make the server allocate more.
TEST(ModelMemoryWaysOutTest, ValuesAreCountedBeforeTheyAreRead) {
  constexpr std::int64_t kHeads = 1 << 18;
  GgufBuilder builder;
  builder.tensors = {{"enc.blk.0.attn_rel_b.weight", {kHeads, 4}, 0, 0}};
  builder.data = std::string(static_cast<std::size_t>(16 * kHeads), '\0');
  const std::string gguf = builder.Build();
  const files::TensorToWrite tensor{"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                    "F32",
                                    {4, kHeads},
                                    {reinterpret_cast<const std::byte*>(builder.data.data()), builder.data.size()}};
  const std::string safetensors = *files::SafetensorsHeader({tensor}, {}) + builder.data;
  const std::string config = absl::StrCat(R"({"model_type": "t5", "num_heads": )", kHeads,
                                          R"(, "num_layers": 1, "relative_attention_num_buckets": 4})");
  for (const std::int64_t limit : {std::int64_t{16 * kHeads - 1}, std::int64_t{1} << 40}) {
    const ModelMemory memory(limit, limit);
    const ModelMemory::Version version = memory.NewVersion();
    ReadLimits limits;
    limits.memory = &version;
    std::int64_t read = 0;
    const auto open = [&](const std::string& name) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
      if (name == "config.json") return std::make_unique<NotedFile>(config, read);
      return std::make_unique<NotedFile>(name == "m.gguf" ? gguf : safetensors, read);
    };
    const bool fits = limit > 16 * kHeads;
    EXPECT_EQ(ReadGguf(open, "m.gguf", limits).ok(), fits);
    EXPECT_EQ(read >= 16 * kHeads, fits) << read << " bytes of a GGUF file were read";
    read = 0;
    EXPECT_EQ(ReadHfCheckpoint(open, limits).ok(), fits);
    EXPECT_EQ(read >= 16 * kHeads, fits) << read << " bytes of a checkpoint were read";
    EXPECT_EQ(memory.used_bytes(), 0);
  }
}

}  // namespace
}  // namespace attnd::model
