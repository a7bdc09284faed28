// Tables of real checkpoints, against what Hugging Face itself has after loading them (tests/golden/checkpoints).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/folder.h"
#include "model/model_file.h"
#include "npy.h"

namespace attnd::model {
namespace {

using ::testing::ElementsAre;
using ::testing::Key;

const std::string kCheckpoints = std::string(ATTND_GOLDEN_DIR) + "/checkpoints/";

ModelTables Read(const std::string& path) {
  const auto root = Folder::OpenRoot(kCheckpoints);
  EXPECT_TRUE(root.ok()) << root.status();
  auto contents = ReadModel(*root, path, ReadLimits{});
  EXPECT_TRUE(contents.ok()) << contents.status();
  return contents.ok() ? *std::move(contents) : ModelTables{};
}

void ExpectTable(const ModelTables& contents, const std::string& name, const std::string& dump) {
  ASSERT_EQ(contents.tables.count(name), 1U) << name;
  const bias::BiasTable& table = contents.tables.at(name);
  const auto& rule = std::get<bias::T5Rule>(table.rule());
  EXPECT_EQ(table.heads(), 4);
  EXPECT_EQ(rule.num_buckets, 32);
  EXPECT_EQ(rule.max_distance, 128);
  EXPECT_EQ(rule.bidirectional, name.rfind("encoder", 0) == 0);
  const std::vector<float> expected = ReadNpy(kCheckpoints + dump);
  ASSERT_EQ(expected.size(), 128U) << dump;
  EXPECT_EQ(rule.values, expected) << dump;
}

TEST(CheckpointsGoldenTest, ASharedTableForEachSide) {
  struct Case {
    std::string folder;
    std::string dumps;
    std::string architecture;
  };
  const Case cases[] = {{"t5_fp32", "t5_fp32", "t5"},
                        {"t5_bf16", "t5_bf16", "t5"},
                        {"t5_sharded", "t5_fp32", "t5"},
                        {"t5_old_config", "t5_old_config", "t5"},  // with a decoy in the cross attention
                        {"mt5_bf16", "mt5_bf16", "mt5"}};
  for (const Case& c : cases) {
    const ModelTables contents = Read(c.folder);
    EXPECT_EQ(contents.format, "huggingface");
    EXPECT_EQ(contents.architecture, c.architecture);
    EXPECT_THAT(contents.tables, ElementsAre(Key("decoder"), Key("encoder"))) << c.folder;
    for (const std::string side : {"decoder", "encoder"}) {
      ExpectTable(contents, side, c.dumps + "." + side + ".block0.relative_attention_bias.npy");
    }
  }
}

TEST(CheckpointsGoldenTest, UmT5HasATableInEveryLayer) {
  const ModelTables contents = Read("umt5_fp32");
  EXPECT_EQ(contents.architecture, "umt5");
  EXPECT_THAT(contents.tables, ElementsAre(Key("decoder.0"), Key("decoder.1"), Key("encoder.0"), Key("encoder.1")));
  for (const std::string side : {"decoder", "encoder"}) {
    for (const std::string layer : {"0", "1"}) {
      ExpectTable(contents, side + "." + layer,
                  "umt5_fp32." + side + ".block" + layer + ".relative_attention_bias.npy");
    }
  }
}

TEST(CheckpointsGoldenTest, GgufFiles) {
  for (const std::string file : {"t5_f32_tables.gguf", "t5_bf16_tables.gguf", "t5_f16_full.gguf"}) {
    const ModelTables contents = Read(file);
    EXPECT_EQ(contents.format, "gguf");
    EXPECT_THAT(contents.tables, ElementsAre(Key("decoder"), Key("encoder"))) << file;
    ExpectTable(contents, "decoder", file + ".dec.blk.0.attn_rel_b.weight.npy");
    ExpectTable(contents, "encoder", file + ".enc.blk.0.attn_rel_b.weight.npy");
  }
  const std::string file = "umt5_f32_tables.gguf";
  const ModelTables contents = Read(file);
  for (const std::string layer : {"0", "1"}) {
    ExpectTable(contents, "decoder." + layer, file + ".dec.blk." + layer + ".attn_rel_b.weight.npy");
    ExpectTable(contents, "encoder." + layer, file + ".enc.blk." + layer + ".attn_rel_b.weight.npy");
  }
}

}  // namespace
}  // namespace attnd::model
