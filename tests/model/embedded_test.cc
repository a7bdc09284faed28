#include "model/embedded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "npy.h"

namespace attnd::model {
namespace {

using ::testing::ElementsAre;
using ::testing::Key;

ModelTables Read(std::string_view name) {
  for (const EmbeddedFile& file : EmbeddedFiles()) {
    if (file.name != name) continue;
    auto contents = ReadEmbedded(file);
    EXPECT_TRUE(contents.ok()) << contents.status();
    return *std::move(contents);
  }
  ADD_FAILURE() << "no embedded model " << name;
  return {};
}

TEST(EmbeddedTest, TheBooksModel) {
  const ModelTables book = Read("book");
  EXPECT_THAT(book.tables, ElementsAre(Key("decoder")));
  const bias::BiasTable& table = book.tables.at("decoder");
  const auto& rule = std::get<bias::T5Rule>(table.rule());
  EXPECT_EQ(table.heads(), 1);
  EXPECT_EQ(rule.num_buckets, 4);  // nb = 3
  EXPECT_EQ(rule.max_distance, 5);
  EXPECT_FALSE(rule.bidirectional);
  EXPECT_EQ(std::set<float>(rule.values.begin(), rule.values.end()).size(), 4U) << "each bucket shows as its own";
}

TEST(EmbeddedTest, TheTrainedModel) {
  const ModelTables tiny = Read("t5-tiny");
  EXPECT_EQ(tiny.architecture, "t5");
  EXPECT_THAT(tiny.tables, ElementsAre(Key("decoder"), Key("encoder")));
  for (const auto& [name, table] : tiny.tables) {
    const auto& rule = std::get<bias::T5Rule>(table.rule());
    EXPECT_EQ(table.heads(), 8);
    EXPECT_EQ(rule.num_buckets, 32);
    EXPECT_EQ(rule.max_distance, 128);
    EXPECT_EQ(rule.bidirectional, name == "encoder");
    EXPECT_EQ(rule.values, ReadNpy(ATTND_GOLDEN_DIR "/embedded/t5-tiny." + name + ".npy"));
  }
  // What its training left: decoder head 1 looks one byte back, head 0 two.
  const bias::BiasTable& decoder = tiny.tables.at("decoder");
  for (std::int64_t offset = 0; offset < 200; ++offset) {
    EXPECT_LE(decoder.Value(1, offset), decoder.Value(1, 1)) << offset;
    EXPECT_LE(decoder.Value(0, offset), decoder.Value(0, 2)) << offset;
  }
}

}  // namespace
}  // namespace attnd::model
