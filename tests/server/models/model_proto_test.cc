#include "server/models/model_proto.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

absl::StatusOr<bias::BiasTable> TableFromProto(const v1::Table& table, std::int64_t max_table_values) {
  return TableOf(table, max_table_values, {});
}

using testing::HasSubstr;

constexpr std::int64_t kHeads = 2;
constexpr std::int64_t kMaxValues = 1000;

std::vector<float> Distinct(int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) values.push_back(static_cast<float>(i) - 1.5F);
  return values;
}

template <typename Values>
void Set(Values* field, const std::vector<float>& values) {
  *field = {values.begin(), values.end()};
}

v1::Table T5(bool bidirectional) {
  v1::Table table;
  table.set_heads(kHeads);
  table.set_bidirectional(bidirectional);
  table.mutable_t5()->set_num_buckets(6);
  table.mutable_t5()->set_max_distance(9);
  Set(table.mutable_t5()->mutable_values(), Distinct(6 * kHeads));
  return table;
}

v1::Table Alibi(bool bidirectional) {
  v1::Table table;
  table.set_heads(kHeads);
  table.set_bidirectional(bidirectional);
  Set(table.mutable_alibi()->mutable_slopes(), {0.5F, 0.25F});
  return table;
}

v1::Table PerOffset(std::int64_t min_offset) {
  v1::Table table;
  table.set_heads(kHeads);
  table.set_bidirectional(min_offset < 0);
  table.mutable_per_offset()->set_min_offset(min_offset);
  Set(table.mutable_per_offset()->mutable_values(), Distinct(4 * kHeads));
  return table;
}

// Every rule, both ways round.
std::vector<v1::Table> Tables() {
  return {T5(false), T5(true), Alibi(false), Alibi(true), PerOffset(0), PerOffset(3), PerOffset(-2)};
}

model::Model ModelOf(std::map<std::string, bias::BiasTable> tables, absl::Time loaded_at = absl::UnixEpoch()) {
  return {
      "name", 3, "source", loaded_at, {.tables = std::move(tables), .format = "format", .architecture = "architecture"},
      "hash"};
}

TEST(ModelProtoTest, TablesComeBackAsTheyWereSent) {
  for (const v1::Table& table : Tables()) {
    SCOPED_TRACE(table.ShortDebugString());
    absl::StatusOr<bias::BiasTable> made = TableFromProto(table, kMaxValues);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(made->heads(), kHeads);
    EXPECT_EQ(made->bidirectional(), table.bidirectional());
    v1::Model model;
    FillModel(ModelOf({{"encoder.2", *std::move(made)}}), /*include_values=*/true, model);
    ASSERT_EQ(model.tables_size(), 1);
    v1::Table expected = table;
    expected.set_name("encoder.2");
    EXPECT_EQ(model.tables(0).DebugString(), expected.DebugString());
  }
}

TEST(ModelProtoTest, RulesBecomeTheTablesOwn) {
  const absl::StatusOr<bias::BiasTable> t5 = TableFromProto(T5(true), kMaxValues);
  ASSERT_TRUE(t5.ok());
  const bias::T5Rule& rule = std::get<bias::T5Rule>(t5->rule());
  EXPECT_EQ(rule.num_buckets, 6);
  EXPECT_EQ(rule.max_distance, 9);
  EXPECT_TRUE(rule.bidirectional);
  EXPECT_EQ(rule.values, Distinct(6 * kHeads));
  const absl::StatusOr<bias::BiasTable> alibi = TableFromProto(Alibi(false), kMaxValues);
  ASSERT_TRUE(alibi.ok());
  EXPECT_EQ(std::get<bias::AlibiRule>(alibi->rule()).slopes, (std::vector<float>{0.5F, 0.25F}));
  EXPECT_EQ(alibi->Value(1, 8), -2.0F);
  const absl::StatusOr<bias::BiasTable> per_offset = TableFromProto(PerOffset(-2), kMaxValues);
  ASSERT_TRUE(per_offset.ok());
  EXPECT_EQ(std::get<bias::PerOffsetRule>(per_offset->rule()).min_offset, -2);
  EXPECT_EQ(per_offset->Value(0, -2), -1.5F);
  EXPECT_EQ(per_offset->Value(1, 1), 5.5F);
}

TEST(ModelProtoTest, ValuesAreLeftOutUnlessAskedFor) {
  for (const v1::Table& table : Tables()) {
    const model::Model model = ModelOf({{"decoder", *TableFromProto(table, kMaxValues)}});
    v1::Table expected = table;
    expected.set_name("decoder");
    switch (expected.rule_case()) {
      case v1::Table::kT5:
        expected.mutable_t5()->clear_values();
        break;
      case v1::Table::kAlibi:
        expected.mutable_alibi()->clear_slopes();
        break;
      default:
        expected.mutable_per_offset()->clear_values();
    }
    v1::Model without;
    FillModel(model, /*include_values=*/false, without);
    EXPECT_EQ(without.tables(0).DebugString(), expected.DebugString());
    EXPECT_EQ(without.tables(0).rule_case(), table.rule_case()) << "the rule is said all the same";
  }
}

TEST(ModelProtoTest, ModelsSayWhatTheyAre) {
  const absl::Time loaded_at = absl::FromUnixNanos(1'700'000'000'123'456'789);
  v1::Model model;
  FillModel(ModelOf({{"encoder", *TableFromProto(T5(true), kMaxValues)},
                     {"decoder", *TableFromProto(Alibi(false), kMaxValues)}},
                    loaded_at),
            /*include_values=*/false, model);
  EXPECT_EQ(model.name(), "name");
  EXPECT_EQ(model.version(), 3U);
  EXPECT_EQ(model.heads(), kHeads);
  EXPECT_EQ(model.source(), "source");
  EXPECT_EQ(model.format(), "format");
  EXPECT_EQ(model.architecture(), "architecture");
  EXPECT_EQ(model.content_hash(), "hash");
  EXPECT_EQ(model.loaded_at().seconds(), 1'700'000'000);
  EXPECT_EQ(model.loaded_at().nanos(), 123'456'789);
  ASSERT_EQ(model.tables_size(), 2);
  EXPECT_EQ(model.tables(0).name(), "decoder") << "by name";
  EXPECT_EQ(model.tables(1).name(), "encoder");
  EXPECT_TRUE(model.tables(0).has_alibi());
  EXPECT_TRUE(model.tables(1).has_t5());
}

TEST(ModelProtoTest, ValuesUpToTheLimit) {
  const struct {
    v1::Table table;
    std::int64_t values;
    const char* field;
  } kCases[] = {{T5(false), 12, "table.t5.values"},
                {Alibi(true), 2, "table.alibi.slopes"},
                {PerOffset(-2), 8, "table.per_offset.values"}};
  for (const auto& c : kCases) {
    // A T5 table's values by offset may be more than its own.
    const std::int64_t by_offset =
        static_cast<std::int64_t>(TableFromProto(c.table, kMaxValues)->offset_form().values.size());
    const std::int64_t enough = std::max(c.values, by_offset);
    EXPECT_TRUE(TableFromProto(c.table, enough).ok()) << c.field;
    EXPECT_EQ(TableFromProto(c.table, enough - 1).status().code(), absl::StatusCode::kResourceExhausted) << c.field;
    const absl::Status status = TableFromProto(c.table, c.values - 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    const std::optional<v1::ErrorDetail> detail = DetailOf(status);
    ASSERT_TRUE(detail.has_value()) << status;
    EXPECT_EQ(detail->field(), c.field);
    EXPECT_EQ(detail->got(), std::to_string(c.values));
    EXPECT_THAT(detail->expected(), HasSubstr(std::to_string(c.values - 1)));
  }
}

TEST(ModelProtoTest, RefusesWhatIsNoTable) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
  const struct {
    const char* field;
    v1::Table table;
    std::function<void(v1::Table&)> change;
  } kCases[] = {
      {"table.rule", v1::Table(), [](v1::Table& t) { t.set_heads(1); }},
      {"table.rule", T5(false), [](v1::Table& t) { t.clear_rule(); }},
      {"table.heads", T5(false), [](v1::Table& t) { t.set_heads(0); }},
      {"table.heads", Alibi(false), [](v1::Table& t) { t.set_heads(-1); }},
      {"table.heads", PerOffset(0), [](v1::Table& t) { t.clear_heads(); }},
      {"table.t5.values", T5(false), [](v1::Table& t) { t.set_heads(3); }},
      {"table.t5.values", T5(false), [](v1::Table& t) { t.set_heads(kHighest); }},
      {"table.t5.values", T5(false), [](v1::Table& t) { t.mutable_t5()->add_values(0); }},
      {"table.t5.values", T5(false), [](v1::Table& t) { t.mutable_t5()->clear_values(); }},
      {"table.t5.values[3]", T5(false), [](v1::Table& t) { t.mutable_t5()->set_values(3, std::nanf("")); }},
      {"table.t5.values[11]", T5(false), [](v1::Table& t) { t.mutable_t5()->set_values(11, kInfinity); }},
      {"table.t5.num_buckets", T5(false), [](v1::Table& t) { t.mutable_t5()->set_num_buckets(1); }},
      {"table.t5.num_buckets", T5(true), [](v1::Table& t) { t.mutable_t5()->set_num_buckets(2); }},
      {"table.t5.num_buckets", T5(false), [](v1::Table& t) { t.mutable_t5()->set_num_buckets(-6); }},
      {"table.t5.max_distance", T5(false), [](v1::Table& t) { t.mutable_t5()->set_max_distance(0); }},
      {"table.t5.max_distance", T5(false), [](v1::Table& t) { t.mutable_t5()->set_max_distance(-1); }},
      {"table.alibi.slopes", Alibi(false), [](v1::Table& t) { t.set_heads(3); }},
      {"table.alibi.slopes", Alibi(false), [](v1::Table& t) { t.mutable_alibi()->add_slopes(1); }},
      {"table.alibi.slopes[0]", Alibi(false), [](v1::Table& t) { t.mutable_alibi()->set_slopes(0, std::nanf("")); }},
      {"table.alibi.slopes[1]", Alibi(false), [](v1::Table& t) { t.mutable_alibi()->set_slopes(1, -kInfinity); }},
      {"table.per_offset.values", PerOffset(0), [](v1::Table& t) { t.mutable_per_offset()->add_values(1); }},
      {"table.per_offset.values", PerOffset(0), [](v1::Table& t) { t.mutable_per_offset()->clear_values(); }},
      {"table.per_offset.values[0]", PerOffset(-2),
       [](v1::Table& t) { t.mutable_per_offset()->set_values(0, kInfinity); }},
      {"table.per_offset.min_offset", PerOffset(0),
       [](v1::Table& t) { t.mutable_per_offset()->set_min_offset(kHighest); }},
      {"table.per_offset.min_offset", PerOffset(-2),
       [](v1::Table& t) { t.mutable_per_offset()->set_min_offset(-kHighest); }},
      {"table.bidirectional", PerOffset(0), [](v1::Table& t) { t.set_bidirectional(true); }},
      {"table.bidirectional", PerOffset(-2), [](v1::Table& t) { t.set_bidirectional(false); }},
  };
  for (const auto& c : kCases) {
    v1::Table table = c.table;
    c.change(table);
    SCOPED_TRACE(table.ShortDebugString());
    const absl::Status status = TableFromProto(table, kMaxValues).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    const std::optional<v1::ErrorDetail> detail = DetailOf(status);
    ASSERT_TRUE(detail.has_value()) << status;
    EXPECT_EQ(detail->field(), c.field);
    EXPECT_EQ(std::string(status.message()),
              std::string(c.field) + ": expected " + detail->expected() + ", got " + detail->got());
  }
}

// A table's memory is counted before its values are copied, and given back if there is no table.
TEST(ModelProtoTest, MemoryIsCountedBeforeItIsTaken) {
  for (const v1::Table& table : Tables()) {
    SCOPED_TRACE(table.ShortDebugString());
    const int count = table.has_t5()      ? table.t5().values_size()
                      : table.has_alibi() ? table.alibi().slopes_size()
                                          : table.per_offset().values_size();
    std::vector<std::int64_t> taken;
    const auto account = [&](std::int64_t bytes) {
      taken.push_back(bytes);
      return absl::OkStatus();
    };
    const auto held = [&] { return std::accumulate(taken.begin(), taken.end(), std::int64_t{0}); };
    {
      const absl::StatusOr<bias::BiasTable> made = TableOf(table, kMaxValues, bias::TableTicket(account));
      ASSERT_TRUE(made.ok()) << made.status();
      ASSERT_FALSE(taken.empty());
      EXPECT_EQ(taken[0], bias::RuleBytes(count));
      EXPECT_GE(held(), bias::RuleBytes(count));
    }
    EXPECT_EQ(held(), 0) << "of the table that has gone";

    taken.clear();
    v1::Table bad = table;
    bad.set_heads(kHeads + 100);
    EXPECT_FALSE(TableOf(bad, kMaxValues, bias::TableTicket(account)).ok());
    EXPECT_EQ(held(), 0) << "of the table that was not made";

    // Refused at the first or at a later step.
    for (std::size_t refused = 0; refused < 2; ++refused) {
      taken.clear();
      bool was_refused = false;
      const absl::Status status =
          TableOf(table, kMaxValues, bias::TableTicket([&](std::int64_t bytes) {
                    if (bytes > 0 && taken.size() >= refused) {
                      was_refused = true;
                      return errors::FieldError(absl::StatusCode::kResourceExhausted, "table", "less", "more");
                    }
                    return account(bytes);
                  }))
              .status();
      EXPECT_EQ(status.ok(), !was_refused);
      if (was_refused) {
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
        EXPECT_EQ(DetailOf(status)->field(), "table") << "the whole of it, and no field of its rule";
      }
      EXPECT_EQ(held(), 0);
    }
  }
}

// A few bytes must not ask for gigabytes: the offsets of a T5 table reach to its max_distance.
TEST(ModelProtoTest, FarDistancesCountTowardsTheLimit) {
  v1::Table table = T5(false);
  table.mutable_t5()->set_max_distance(std::int64_t{1} << 40);
  EXPECT_EQ(TableFromProto(table, kMaxValues).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace attnd::server
