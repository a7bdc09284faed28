#include "model/json_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace attnd::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;

constexpr char kT5[] =
    R"({"architecture": "t5", "tables": {"decoder": )"
    R"({"rule": "t5", "num_buckets": 4, "max_distance": 5, "values": [[1, 2], [3, 4], [5, 6], [7, 8]]}}})";

TEST(JsonModelTest, T5) {
  const auto contents = ParseJsonModel(kT5, {});
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_EQ(contents->format, "json");
  EXPECT_EQ(contents->architecture, "t5");
  const bias::BiasTable& table = contents->tables.at("decoder");
  EXPECT_EQ(table.heads(), 2);
  const auto& rule = std::get<bias::T5Rule>(table.rule());
  EXPECT_EQ(rule.num_buckets, 4);
  EXPECT_EQ(rule.max_distance, 5);
  EXPECT_FALSE(rule.bidirectional);
  EXPECT_THAT(rule.values, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(JsonModelTest, TheBooksSpellingIsTheSameTable) {
  const auto book = ParseJsonModel(
      R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [[1, 2], [3, 4], [5, 6], [7, 8]]}}})",
      {});
  ASSERT_TRUE(book.ok()) << book.status();
  const auto& rule = std::get<bias::T5Rule>(book->tables.at("decoder").rule());
  EXPECT_EQ(rule.num_buckets, 4);
  EXPECT_EQ(rule.max_distance, 5);
}

TEST(JsonModelTest, OtherRulesAndSeveralTables) {
  const auto contents = ParseJsonModel(
      R"({"tables": {"decoder.0": {"rule": "alibi", "slopes": [0.5, 0.25]},
                     "decoder.1": {"rule": "per_offset", "min_offset": 0, "values": [[0, -1, -2], [0, 1, 2]]},
                     "encoder": {"rule": "alibi", "slopes": [0.5, 0.1], "bidirectional": true}}})",
      {});
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("decoder.0"), Key("decoder.1"), Key("encoder")));
  EXPECT_EQ(contents->tables.at("decoder.0").Value(1, 4), -1.0F);
  EXPECT_FALSE(contents->tables.at("decoder.0").bidirectional());
  EXPECT_EQ(contents->tables.at("decoder.1").Value(1, 9), 2.0F);
  EXPECT_TRUE(contents->tables.at("encoder").bidirectional());
  EXPECT_EQ(contents->tables.at("encoder").Value(1, 1), -0.1F);
}

TEST(JsonModelTest, RefusesOneBrokenThing) {
  struct Case {
    std::string from;
    std::string to;
    std::string says;
  };
  const std::string table =
      R"({"rule": "t5", "num_buckets": 4, "max_distance": 5, "values": [[1, 2], [3, 4], [5, 6], [7, 8]]})";
  const std::string values = "[[1, 2], [3, 4], [5, 6], [7, 8]]";
  const Case cases[] = {
      {kT5, "", "not strict JSON"},
      {kT5, "[]", "expected an object"},
      {R"("architecture")", R"("arquitecture")", "unknown field \"arquitecture\""},
      {R"("t5", "tables")", R"(5, "tables")", "architecture: expected a string"},
      {R"({"decoder")", R"({"a": 1, "decoder")", "tables.\"a\": table: expected an object"},
      {"\"decoder\"", "\"middle\"", "table.name: expected decoder"},
      {"\"decoder\"", "\"../decoder\"", "table.name"},
      {table, "[]", "table: expected an object"},
      {R"("tables": {"decoder": )" + table + "}", R"("tables": {})",
       "tables: expected an object of at least one table"},
      {R"("tables": {"decoder": )" + table + "}", R"("tables": [])", "tables: expected"},
      {R"("rule": "t5")", R"("rule": "t6")", "rule: expected t5, alibi or per_offset, got \"t6\""},
      {R"("rule": "t5")", R"("rule": 5)", "rule: expected t5, alibi or per_offset, got 5"},
      {R"("rule": "t5")", R"("rule": 5)", "rule"},
      {R"("rule": "t5", )", "", "rule"},
      {R"("num_buckets": 4)", R"("num_buckets": 5)", "got 4 lists for 5"},
      {R"("num_buckets": 4)", R"("num_buckets": 4.0)", "num_buckets: expected an integer, got 4.0"},
      {R"("num_buckets": 4)", R"("num_buckets": -9223372036854775808)", "got 4 lists for -9223372036854775808"},
      {R"("num_buckets": 4)", R"("num_buckets": 18446744073709551615)", "num_buckets: expected an integer"},
      {R"("num_buckets": 4)", R"("nb": 4)", "unknown field \"max_distance\""},
      {R"("max_distance": 5)", R"("max_distance": 2)", "max_distance: expected more than 2"},
      {R"("max_distance": 5, )", "", "max_distance: expected an integer, got none"},
      {R"("max_distance": 5)", R"("max_distanze": 5)", "unknown field \"max_distanze\""},
      {R"("max_distance": 5)", R"("max_distance": 5, "bidirectional": 1)",
       "bidirectional: expected true or false, got 1"},
      {values, "[]", "values: expected a list of lists"},
      {values, "[1, 2, 3, 4]", "values: expected a list of numbers, got 1"},
      {values, "[[1, 2], [3, 4], [5, 6], [7]]", "values: expected lists of one length"},
      {values, "[[], [], [], []]", "values: expected lists of one length, from 1 on"},
      {values, R"([[1, 2], [3, "4"], [5, 6], [7, 8]])", "values: expected numbers, got \"4\""},
      {values, "[[1, 2], [3, null], [5, 6], [7, 8]]", "values: expected numbers, got null"},
      {values, "[[1, 2], [3, 1e39], [5, 6], [7, 8]]", "values: expected numbers that a float holds"},
      {values, "[[1, 2], [3, NaN], [5, 6], [7, 8]]", "not strict JSON"},
      {table, table + R"(, "decoder": )" + table, "given twice"},
      {table, table + R"(, "encoder": {"rule": "alibi", "slopes": [1]})", "heads: expected 2 as in the model's other"},
      {table, R"({"rule": "alibi", "slopes": []})", "heads: expected at least 1, got 0"},
      {table, R"({"rule": "alibi"})", "slopes: expected a list of numbers"},
      {table, R"({"rule": "alibi", "slopes": [1e20]})", "slopes[0]: expected a finite value up to 2^64"},
      {table, R"({"rule": "per_offset", "values": [[1]]})", "min_offset: expected an integer"},
      {table, R"({"rule": "per_offset", "min_offset": 9223372036854775807, "values": [[1]]})",
       "min_offset: expected at most"},
  };
  for (const Case& c : cases) {
    std::string text = kT5;
    const std::size_t at = text.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    text.replace(at, c.from.size(), c.to);
    const absl::Status status = ParseJsonModel(text, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says)) << text;
  }
}

TEST(JsonModelTest, LimitsAreNamed) {
  ReadLimits limits;
  limits.max_table_values = 7;
  const absl::Status status = ParseJsonModel(kT5, limits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 7 values (max_table_values), got 8"));
}

}  // namespace
}  // namespace attnd::model
