// What may be opened: each number at its limits and one beyond.
#include "server/session/session_shape.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention/calls.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"
#include "session/session_calls.h"

namespace attnd::server {
namespace {

using absl::StatusCode;
using testing::ElementsAre;

// Limits that a test can go beyond.
Limits SmallLimits() {
  Limits limits;
  limits.max_dim = 40;
  limits.max_head_dim = 24;
  return limits;
}

// Two self layers and a cross layer.
v1::SessionOpen MixedOpen() {
  v1::SessionOpen open = PlainOpen(8, 4, 20);
  *open.add_layers() = PlainLayer(v1::SESSION_LAYER_KIND_SELF, 6, 12);
  return open;
}

class SessionShapeTest : public testing::Test {
 protected:
  SessionShapeTest() { AddTestModel(registry_); }

  absl::StatusOr<SessionShape> Check(const v1::SessionOpen& open, const Limits& limits = SmallLimits()) const {
    return CheckOpen(open, limits, registry_);
  }
  std::string FieldOf(const absl::Status& status) const {
    const std::optional<v1::ErrorDetail> detail = DetailOf(status);
    return detail.has_value() ? detail->field() : "no field";
  }

  model::Registry registry_{model::RegistryOptions{}};
};

// A number of an opening, its lowest and its highest value.
struct NumberRange {
  const char* field;
  std::int64_t lowest, highest;
  void (*set)(v1::SessionOpen& open, std::int64_t value);
  StatusCode beyond = StatusCode::kInvalidArgument;
};

const NumberRange kRanges[] = {
    {"rows", 4, 40,
     [](v1::SessionOpen& o, std::int64_t value) {
       o.set_rows(value), o.clear_layers(), o.set_sources(0), o.set_max_source_tokens(0),
           *o.add_layers() = PlainLayer(v1::SESSION_LAYER_KIND_SELF);
     }},
    {"sources", 1, 8,
     [](v1::SessionOpen& o, std::int64_t value) {
       o.set_sources(value);
       for (int row = 0; row < 8; ++row) o.add_row_sources(0);
     }},
    {"max_tokens", 1, 40, [](v1::SessionOpen& o, std::int64_t value) { o.set_max_tokens(value); }},
    {"max_source_tokens", 1, 40, [](v1::SessionOpen& o, std::int64_t value) { o.set_max_source_tokens(value); }},
    {"row_sources[5]", 0, 3,
     [](v1::SessionOpen& o, std::int64_t value) {
       for (int row = 0; row < 8; ++row) o.add_row_sources(row == 5 ? value : 1);
     }},
    {"layers[1].heads", 1, 40, [](v1::SessionOpen& o, std::int64_t value) { o.mutable_layers(1)->set_heads(value); }},
    {"layers[2].kv_heads", 0, 6,
     [](v1::SessionOpen& o, std::int64_t value) { o.mutable_layers(2)->set_kv_heads(value); }},
    {"layers[0].head_dim", 1, 24,
     [](v1::SessionOpen& o, std::int64_t value) { o.mutable_layers(0)->set_head_dim(value); }},
    {"layers[1].value_head_dim", 0, 24,
     [](v1::SessionOpen& o, std::int64_t value) { o.mutable_layers(1)->set_value_head_dim(value); }},
};

TEST_F(SessionShapeTest, TakesEachNumberUpToItsLimitAndNotOneBeyond) {
  for (const NumberRange& range : kRanges) {
    const std::int64_t lowest = std::string(range.field) == "rows" ? 1 : range.lowest;
    for (const std::int64_t value : {lowest - 1, lowest, range.highest, range.highest + 1}) {
      v1::SessionOpen open = MixedOpen();
      range.set(open, value);
      const absl::StatusOr<SessionShape> shape = Check(open);
      const bool within = value >= lowest && value <= range.highest;
      EXPECT_EQ(shape.status().code(), within ? StatusCode::kOk : range.beyond)
          << range.field << " = " << value << ": " << shape.status();
      if (!within) {
        EXPECT_EQ(FieldOf(shape.status()), absl::StrCat("open.", range.field)) << value;
      }
    }
  }
}

// Whatever is added to the messages has a row above, or a test of its own here.
TEST_F(SessionShapeTest, EachFieldHasItsTest) {
  std::set<std::string> tested = {"model", "version", "layers", "dtype", "grace", "kind", "table", "bias", "scale"};
  for (const NumberRange& range : kRanges) {
    std::string field = range.field;
    if (const std::size_t dot = field.find('.'); dot != std::string::npos) field = field.substr(dot + 1);
    tested.insert(field.substr(0, field.find('[')));
  }
  for (const auto* const descriptor : {v1::SessionOpen::descriptor(), v1::SessionLayer::descriptor()}) {
    for (int i = 0; i < descriptor->field_count(); ++i) {
      EXPECT_TRUE(tested.contains(std::string(descriptor->field(i)->name()))) << descriptor->field(i)->full_name();
    }
  }
}

TEST_F(SessionShapeTest, RowsAndLayersHaveLimitsOfTheirOwn) {
  v1::SessionOpen open = PlainOpen(reservation::kMostRows, 0, 1);
  EXPECT_TRUE(Check(open, Limits()).ok());
  open.set_rows(reservation::kMostRows + 1);
  EXPECT_EQ(FieldOf(Check(open, Limits()).status()), "open.rows");
  open = PlainOpen();
  while (open.layers_size() < reservation::kMostLayers) *open.add_layers() = open.layers(0);
  EXPECT_TRUE(Check(open, Limits()).ok());
  *open.add_layers() = open.layers(0);
  EXPECT_EQ(FieldOf(Check(open, Limits()).status()), "open.layers");
  open.clear_layers();
  EXPECT_EQ(FieldOf(Check(open, Limits()).status()), "open.layers");
}

TEST_F(SessionShapeTest, NumbersOfListsAreChecked) {
  for (const int size : {1, 7, 9}) {
    v1::SessionOpen open = MixedOpen();
    for (int i = 0; i < size; ++i) open.add_row_sources(0);
    EXPECT_EQ(FieldOf(Check(open).status()), "open.row_sources") << size;
  }
  v1::SessionOpen open = MixedOpen();
  open.set_sources(3);  // does not divide 8 rows
  EXPECT_EQ(FieldOf(Check(open).status()), "open.sources");
}

TEST_F(SessionShapeTest, WithoutLayersOfAKindItHasNothingOfIt) {
  struct Case {
    const char* field;
    void (*spoil)(v1::SessionOpen& open);
  };
  const auto crosses = [] {
    v1::SessionOpen open = PlainOpen(2, 2);
    open.mutable_layers()->DeleteSubrange(0, 1);
    open.set_max_tokens(0);
    return open;
  };
  EXPECT_TRUE(Check(PlainOpen(2, 0, 20)).ok());
  v1::SessionOpen only_cross = crosses();
  only_cross.set_max_source_tokens(20);
  EXPECT_TRUE(Check(only_cross).ok());
  for (const Case& c :
       {Case{"open.sources", [](v1::SessionOpen& o) { o.set_sources(1); }},
        Case{"open.max_source_tokens", [](v1::SessionOpen& o) { o.set_max_source_tokens(1); }},
        Case{"open.model", [](v1::SessionOpen& o) { o.set_model(kModel); }},
        Case{"open.version", [](v1::SessionOpen& o) { o.set_version(1); }},
        Case{"open.layers[0].table", [](v1::SessionOpen& o) { o.mutable_layers(0)->set_table("t"); }}}) {
    v1::SessionOpen open = PlainOpen(2, 0, 20);
    c.spoil(open);
    EXPECT_EQ(FieldOf(Check(open).status()), c.field);
  }
  only_cross.set_max_tokens(1);
  EXPECT_EQ(FieldOf(Check(only_cross).status()), "open.max_tokens");
}

TEST_F(SessionShapeTest, LayersAreWhatTheyAreSaidToBe) {
  v1::SessionOpen open = MixedOpen();
  open.set_model(kModel);
  open.mutable_layers(0)->clear_bias();
  open.mutable_layers(0)->set_table("decoder");
  open.mutable_layers(1)->set_scale(0.5F);
  open.mutable_layers(2)->set_kv_heads(3);
  open.mutable_layers(2)->set_value_head_dim(5);
  const absl::StatusOr<SessionShape> shape = Check(open);
  ASSERT_TRUE(shape.ok()) << shape.status();
  ASSERT_EQ(shape->layers.size(), 3U);
  EXPECT_TRUE(shape->layers[0].is_self && !shape->layers[1].is_self && shape->layers[2].is_self);
  EXPECT_EQ(shape->layers[0].place, 0);
  EXPECT_EQ(shape->layers[1].place, 0);
  EXPECT_EQ(shape->layers[2].place, 1);
  EXPECT_TRUE(shape->layers[0].bias.has_value());
  EXPECT_FALSE(shape->layers[1].bias.has_value() || shape->layers[2].bias.has_value());
  EXPECT_EQ(shape->layers[0].scale, 1.0F);
  EXPECT_EQ(shape->layers[1].scale, 0.5F);
  EXPECT_EQ(shape->layers[0].kept.kv_heads, 2);
  EXPECT_EQ(shape->layers[0].kept.value_head_dim, 8);
  EXPECT_EQ(shape->layers[2].heads, 6);
  EXPECT_EQ(shape->layers[2].kept.kv_heads, 3);
  EXPECT_EQ(shape->layers[2].kept.value_head_dim, 5);
  EXPECT_THAT(shape->row_sources, ElementsAre(0, 0, 1, 1, 2, 2, 3, 3));
  EXPECT_EQ(shape->self->sequences, 8);
  EXPECT_EQ(shape->cross->sequences, 4);
  EXPECT_EQ(shape->self->most_tokens, 20);
  EXPECT_NE(shape->model, nullptr);
  for (const float scale : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    v1::SessionOpen wrong = open;
    wrong.mutable_layers(1)->set_scale(scale);
    EXPECT_EQ(FieldOf(Check(wrong).status()), "open.layers[1].scale");
  }
  v1::SessionOpen wrong = open;
  wrong.mutable_layers(0)->set_heads(kHeads + 1);
  EXPECT_EQ(FieldOf(Check(wrong).status()), "open.layers[0].heads");
  wrong = open;
  wrong.mutable_layers(2)->set_kv_heads(4);
  EXPECT_EQ(FieldOf(Check(wrong).status()), "open.layers[2].kv_heads");
  wrong = open;
  wrong.mutable_layers(0)->set_table("nobody");
  EXPECT_EQ(Check(wrong).status().code(), StatusCode::kNotFound);
  wrong = open;
  wrong.set_version(77);
  EXPECT_EQ(Check(wrong).status().code(), StatusCode::kNotFound);
  wrong = open;
  wrong.clear_dtype();
  EXPECT_EQ(FieldOf(Check(wrong).status()), "open.dtype");
  wrong = open;
  wrong.mutable_layers(1)->clear_kind();
  EXPECT_EQ(FieldOf(Check(wrong).status()), "open.layers[1].kind");
  wrong = open;
  wrong.mutable_layers(1)->set_bias(static_cast<v1::Bias>(9));
  EXPECT_EQ(FieldOf(Check(wrong).status()), "open.layers[1].bias");
}

// All that a session may keep is reserved: the pools of both kinds, their lists, and what the rows take.
TEST_F(SessionShapeTest, ReservesForBothKindsOfLayers) {
  const absl::StatusOr<SessionShape> self = Check(PlainOpen(8, 0, 20));
  const absl::StatusOr<SessionShape> both = Check(PlainOpen(8, 4, 20));
  ASSERT_TRUE(self.ok() && both.ok());
  EXPECT_GE(self->reserved_bytes(), self->self->bytes.pool + self->self->bytes.lists);
  EXPECT_GE(both->reserved_bytes(), self->reserved_bytes() + both->cross->bytes.pool + both->cross->bytes.lists);
  EXPECT_EQ(both->reserved_bytes(), reservation::SessionBytes(8, both->self->bytes, both->cross->bytes).total());
  // Sizes that no machine has.
  v1::SessionOpen huge = PlainOpen(1 << 16, 0, std::numeric_limits<std::int32_t>::max());
  while (huge.layers_size() < 1000) *huge.add_layers() = PlainLayer(v1::SESSION_LAYER_KIND_SELF, 4096, 4096);
  EXPECT_EQ(Check(huge, Limits()).status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace attnd::server
