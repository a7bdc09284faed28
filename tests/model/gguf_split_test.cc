// Models in several GGUF files: joined, or refused with what is wrong, and never a layer with another's values.
#include "model/gguf_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/gguf_tables.h"
#include "model/names.h"
#include "model/registry.h"
#include "npy.h"

namespace attnd::model {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;

const std::string kFolder = std::string(ATTND_GOLDEN_DIR) + "/gguf_split/";
constexpr char kFirst[] = "umt5-two-first-00001-of-00002.gguf";
constexpr char kSecond[] = "umt5-two-first-00002-of-00002.gguf";

using Files = std::map<std::string, std::string>;

Files Golden() {
  Files files;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().filename()] = std::string(std::istreambuf_iterator<char>(file), {});
  }
  return files;
}

absl::StatusOr<ModelTables> Read(const Files& files, const std::string& name) {
  const auto open = [&](const std::string& file) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
    const auto found = files.find(file);
    if (found == files.end()) return absl::NotFoundError(file);
    return files::OpenMemory({reinterpret_cast<const std::byte*>(found->second.data()), found->second.size()});
  };
  return ReadGguf(open, name, {});
}

// Replaces the value, of `bytes` bytes, of a metadata key.
void Set(std::string& file, const std::string& key, std::size_t bytes, std::uint64_t value) {
  const std::size_t at = file.find(key);
  ASSERT_NE(at, std::string::npos) << key;
  for (std::size_t i = 0; i < bytes; ++i) file[at + key.size() + 4 + i] = static_cast<char>(value >> (8 * i));
}

TEST(GgufSplitTest, ShardsGiveWhatTheWholeFileGives) {
  const std::vector<float> layers = ReadNpy(kFolder + "layers.npy");
  ASSERT_EQ(layers.size(), 4U * 64U);
  for (const std::string name :
       {"umt5-whole.gguf", kFirst, "umt5-one-first-00001-of-00002.gguf", "umt5-no-tensors-first-00001-of-00002.gguf"}) {
    const auto contents = Read(Golden(), name);
    ASSERT_TRUE(contents.ok()) << name << ": " << contents.status();
    ASSERT_EQ(contents->tables.size(), 4U) << name;
    for (std::size_t layer = 0; layer < 4; ++layer) {
      const std::vector<float> expected(layers.begin() + static_cast<std::ptrdiff_t>(64 * layer),
                                        layers.begin() + static_cast<std::ptrdiff_t>(64 * (layer + 1)));
      const auto& table = contents->tables.at("encoder." + std::to_string(layer));
      EXPECT_EQ(std::get<bias::T5Rule>(table.rule()).values, expected) << name << " layer " << layer;
    }
  }
  const auto both = Read(Golden(), "t5-enc-dec-00001-of-00002.gguf");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_THAT(both->tables, ElementsAre(Key("decoder"), Key("encoder")));
}

TEST(GgufSplitTest, RefusesWhatDoesNotFitTogether) {
  struct Case {
    std::string says;
    std::function<void(Files&)> break_it;
    std::string name = kFirst;
  };
  const Case cases[] = {
      {"split.count: expected 2 shards, but \"umt5-two-first-00002-of-00002.gguf\" is missing",
       [](Files& f) { f.erase(kSecond); }},
      {"split.no: expected 0, the first shard, which stands for all 2, got 1", [](Files&) {}, kSecond},
      {"expected a file named *-00001-of-00002.gguf", [](Files& f) { f["renamed.gguf"] = f[kFirst]; }, "renamed.gguf"},
      {"expected a file named *-00001-of-00002.gguf", [](Files& f) { f["x-00001-of-00003.gguf"] = f[kFirst]; },
       "x-00001-of-00003.gguf"},
      {"got 0, 2, 4", [](Files& f) { f[kSecond] = f[kFirst]; }},
      {"got 1, 3, 4", [](Files& f) { Set(f[kSecond], "split.count", 2, 3); }},
      {"got 1, 2, 5", [](Files& f) { Set(f[kSecond], "split.tensors.count", 4, 5); }},
      {"got 0, 1, 2", [](Files& f) { f[kSecond].replace(f[kSecond].find("split.count"), 5, "other"); }},
      {"split.tensors.count: expected 5 tensors in all shards, got 4",
       [](Files& f) {
         for (const char* name : {kFirst, kSecond}) Set(f[name], "split.tensors.count", 4, 5);
       }},
      {"split.no: expected an integer from 0 to 1, got none",
       [](Files& f) { f[kFirst].replace(f[kFirst].find("split.no"), 8, "split.xx"); }},
      {"split.no: expected an integer from 0 to 1, got 2", [](Files& f) { Set(f[kFirst], "split.no", 2, 2); }},
      {"another shard has it, too", [](Files& f) { f[kSecond].replace(f[kSecond].find("enc.blk.2"), 9, "enc.blk.1"); }},
      {"general.split_count",
       [](Files& f) { f[kFirst].replace(f[kFirst].find("split.tensors.count"), 19, "general.split_count"); }},
      {"\"enc.blk.3.attn_rel_b.weight\": missing, though 3 of 4 layers have a table",
       [](Files& f) { f[kSecond].replace(f[kSecond].find("enc.blk.3"), 9, "enc.blk_3"); }},
      {"\"umt5-two-first-00002-of-00002.gguf\": magic", [](Files& f) { f[kSecond] = "a pointer to the real file"; }},
  };
  for (const Case& c : cases) {
    Files files = Golden();
    c.break_it(files);
    const absl::Status status = Read(files, c.name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

TEST(GgufSplitTest, ACountOfOneIsAWholeModel) {
  Files files = Golden();
  files["renamed.gguf"] = files["umt5-whole.gguf"];
  Set(files["umt5-two-first-00001-of-00002.gguf"], "split.count", 2, 1);
  EXPECT_TRUE(Read(files, "renamed.gguf").ok());
  // The layers are counted all the same.
  EXPECT_THAT(std::string(Read(files, kFirst).status().message()),
              HasSubstr("\"enc.blk.2.attn_rel_b.weight\": missing"));
}

// At start-up the first shard stands for all; the others are skipped with words.
TEST(GgufSplitTest, AFolderOfShardsHasEachModelOnce) {
  std::vector<std::string> skipped;
  RegistryOptions options;
  options.model_root = kFolder;
  options.log = [&](const std::string& line) { skipped.push_back(line); };
  Registry registry(options);
  EXPECT_EQ(registry.LoadRoot().value(), 5);
  EXPECT_TRUE(registry.Find("umt5-two-first-00001-of-00002", 0).ok());
  EXPECT_EQ(registry.Find("umt5-two-first-00002-of-00002", 0).status().code(), absl::StatusCode::kNotFound);
  for (const FailedModel& failed : registry.Failed()) EXPECT_FALSE(IsFurtherShard(failed.path)) << failed.path;
  EXPECT_THAT(skipped, Contains(HasSubstr("split.no: expected 0, the first shard")));
}

}  // namespace
}  // namespace attnd::model
