#include "bias/source_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bias/alibi.h"
#include "bias/random_values.h"

namespace attnd::bias {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

BiasTable Made(const std::string& text) {
  const absl::StatusOr<SourceWords> words = ReadSource(text);
  EXPECT_TRUE(words.ok()) << words.status();
  absl::StatusOr<WordTable> made = MakeTable(*words);
  EXPECT_TRUE(made.ok()) << made.status();
  return std::move(made->table);
}

std::string Refused(const std::string& text) {
  const absl::StatusOr<SourceWords> words = ReadSource(text);
  if (!words.ok()) return std::string(words.status().message());
  const absl::StatusOr<WordTable> made = MakeTable(*words);
  return made.ok() ? "accepted" : std::string(made.status().message());
}

// Of SplitMix64's author: the outputs from seed 1234567 begin with 6457827717110365317, 3203168211198807973.
TEST(RandomValues, AreSplitMix64) {
  const std::vector<float> values = RandomValues(2, 1234567);
  const auto of = [](std::uint64_t output) { return static_cast<float>(output >> 40) / 8388608 - 1; };
  EXPECT_THAT(values, ElementsAre(of(6457827717110365317U), of(3203168211198807973U)));
  for (const float value : RandomValues(10000, 1)) EXPECT_TRUE(value >= -1 && value < 1);
}

TEST(Source, Alibi) {
  const BiasTable table = Made("alibi:12");
  EXPECT_EQ(std::get<AlibiRule>(table.rule()).slopes, PaperSlopes(12));
  EXPECT_FALSE(table.bidirectional());
  EXPECT_TRUE(Made("alibi:12,bidirectional").bidirectional());
}

TEST(Source, T5WithRandomValues) {
  const BiasTable table = Made("t5:32,128,heads=3,bidirectional,seed=7");
  const auto& rule = std::get<T5Rule>(table.rule());
  EXPECT_EQ(table.heads(), 3);
  EXPECT_EQ(rule.num_buckets, 32);
  EXPECT_EQ(rule.max_distance, 128);
  EXPECT_TRUE(rule.bidirectional);
  EXPECT_EQ(rule.values, RandomValues(96, 7));
  EXPECT_EQ(std::get<T5Rule>(Made("t5:32,128").rule()).values, RandomValues(32, 0));
}

TEST(Source, T5WithGivenValues) {
  const BiasTable table = Made("t5:2,5,heads=2@0.1,-2,3e1,.5");
  EXPECT_THAT(std::get<T5Rule>(table.rule()).values, ElementsAre(0.1F, -2, 30, 0.5F));
  EXPECT_EQ(table.Value(1, 7), 0.5F);
}

TEST(Source, Offsets) {
  const BiasTable table = Made("offsets:-1@1,2,3");
  EXPECT_TRUE(table.bidirectional());
  EXPECT_EQ(table.Value(0, -5), 1);
  EXPECT_EQ(table.Value(0, 0), 2);
  EXPECT_EQ(table.Value(0, 9), 3);
  EXPECT_EQ(Made("offsets:0,heads=2@1,2,3,4").Value(1, 0), 3);
}

TEST(Source, ModelsFilesTablesAndHeads) {
  struct Case {
    std::string text;
    SourceKind kind;
    std::string name, table;
    std::optional<std::int64_t> head;
  };
  for (const Case& c : {Case{"t5-tiny", SourceKind::kModel, "t5-tiny", "", std::nullopt},
                        Case{"t5-tiny:encoder", SourceKind::kModel, "t5-tiny", "encoder", std::nullopt},
                        Case{"t5-tiny:encoder.3#5", SourceKind::kModel, "t5-tiny", "encoder.3", 5},
                        Case{"model:t5:encoder", SourceKind::kModel, "t5", "encoder", std::nullopt},
                        Case{"alibi", SourceKind::kModel, "alibi", "", std::nullopt},
                        Case{"file:a:b.json", SourceKind::kFile, "a:b.json", "", std::nullopt},
                        Case{"file:/x#y/a.json:decoder#0", SourceKind::kFile, "/x#y/a.json", "decoder", 0},
                        Case{"file:a#b", SourceKind::kFile, "a#b", "", std::nullopt}}) {
    const absl::StatusOr<SourceWords> words = ReadSource(c.text);
    ASSERT_TRUE(words.ok()) << words.status();
    EXPECT_EQ(words->kind, c.kind) << c.text;
    EXPECT_EQ(words->name, c.name) << c.text;
    EXPECT_EQ(words->table, c.table) << c.text;
    EXPECT_EQ(words->head, c.head) << c.text;
    EXPECT_EQ(words->label, c.text);
  }
}

TEST(Source, RefusalsNameTheSourceTheFieldAndWhatCame) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"alibi:0", "alibi:0: heads: expected 1 to 4096, got 0"},
      {"alibi:-3", "alibi:-3: heads: expected 1 to 4096, got -3"},
      {"alibi:4097", "alibi:4097: heads: expected 1 to 4096, got 4097"},
      {"alibi:9999999999999999999", "heads: expected a whole number of at most 18 digits, got \"9999999999999999999\""},
      {"alibi:", "alibi:: source: expected a name behind the colon"},
      {"alibi:8 ", "got \"8 \""},
      {"alibi:8,heads=2", "heads: expected none here, got 2"},
      {"alibi:8,seed=2", "seed: expected none here, got 2"},
      {"alibi:8@1", "values: expected none here, got 1 of them"},
      {"alibi:8#", "alibi:8#: head: expected a whole number"},
      {"t5:4", "t5:4: max_distance: expected a whole number of at most 18 digits, got \"\""},
      {"t5:x,5", "t5:x,5: num_buckets: expected a whole number of at most 18 digits, got \"x\""},
      {"t5:1,5", "t5:1,5: num_buckets: expected at least 2, got 1"},
      {"t5:-4,5", "num_buckets: expected at least 2, got -4"},
      {"t5:3,5,bidirectional", "num_buckets: expected at least 4 (bidirectional), got 3"},
      {"t5:4,2", "t5:4,2: max_distance: expected more than 2 (the distances with a bucket each), got 2"},
      {"t5:32,999999999999999999", "max_distance: expected at most 281474976710656, got 999999999999999999"},
      {"t5:999999999999999999,5", "num_buckets x heads: expected at most 16777216, got 999999999999999999 x 1"},
      {"t5:32,128,heads=0", "heads: expected at least 1, got 0"},
      {"t5:32,128,seed=-1", "seed: expected 0 or more, got -1"},
      {"t5:32,128,random", "option: expected bidirectional, heads=N or seed=N, got \"random\""},
      {"t5:4,5@0.1,0.2", "t5:4,5@0.1,0.2: values: expected 4 buckets x 1 heads, got 2"},
      {"t5:4,5@", "values[0]: expected a number that a float holds, got \"\""},
      {"t5:4,5@1,2,nan,4", "values[2]: expected a number that a float holds, got \"nan\""},
      {"t5:4,5@1,2,3,1e39", "values[3]: expected a number that a float holds, got \"1e39\""},
      {"t5:4,5@1,2,3,0x4", "values[3]: expected a number that a float holds, got \"0x4\""},
      {"t5:4,5,seed=1@1,2,3,4", "seed: expected none beside values, got 1"},
      {"t5:encoder", "source: expected t5:BUCKETS,MAX, or model:t5:TABLE for a model named t5, got \"t5:encoder\""},
      {"offsets:0", "offsets:0: values: expected a list after @, got none"},
      {"offsets:0,heads=2@1,2,3", "values: expected a multiple of 2 heads, at least one offset, got 3"},
      {"offsets:99999999999@1", "min_offset: expected at most 4294967296 either way, got 99999999999"},
      {"offsets:0,bidirectional@1", "option: expected heads=N"},
      {"book:3", "book:3: source: expected alibi:HEADS, t5:BUCKETS,MAX"},
      {"", "source: expected a name"},
  };
  for (const auto& [text, message] : cases) EXPECT_THAT(Refused(text), HasSubstr(message)) << text;
}

TEST(Source, ALongOneIsCutInMessages) {
  EXPECT_LT(Refused("t5:4,5@" + std::string(10000, '1')).size(), 500U);
  EXPECT_THAT(Refused("alibi:\n"), HasSubstr("alibi:\\x0a: heads"));
}

}  // namespace
}  // namespace attnd::bias
