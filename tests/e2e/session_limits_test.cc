// Each number of a session's messages at its limits and one beyond, by both doors. The message is right otherwise.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "field_limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "session_support.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;

constexpr std::int64_t kMaxDim = 9, kMaxHeadDim = 6;
constexpr std::int64_t kMaxPosition = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
constexpr char kDtypes[] = "DTYPE_FP32, DTYPE_FP16 or DTYPE_BF16";

template <typename Message>
struct Range {
  Range(const char* name, std::int64_t from, std::int64_t to, std::function<void(Message&)> making = nullptr,
        std::string text = "", StatusCode refusal = StatusCode::INVALID_ARGUMENT)
      : field(name), lowest(from), highest(to), prepare(std::move(making)), expected(std::move(text)), code(refusal) {}

  std::string field;
  std::int64_t lowest, highest;
  std::function<void(Message&)> prepare;  // what else the message needs, whatever the number; or null
  std::string expected;                   // empty: "<lowest> to <highest>"
  StatusCode code;
};

// Two rows, a self layer, and a cross layer over two sources, without a bias.
v1::SessionOpen Opening() {
  v1::SessionOpen open;
  open.set_rows(2);
  open.set_sources(2);
  open.set_dtype(v1::DTYPE_FP32);
  open.set_max_tokens(8);
  open.set_max_source_tokens(8);
  for (const v1::SessionLayerKind kind : {v1::SESSION_LAYER_KIND_SELF, v1::SESSION_LAYER_KIND_CROSS}) {
    v1::SessionLayer& layer = *open.add_layers();
    layer.set_kind(kind);
    layer.set_bias(v1::BIAS_NONE);
    layer.set_heads(2);
    layer.set_head_dim(4);
  }
  return open;
}

std::vector<Range<v1::SessionOpen>> OpenRanges() {
  using Open = v1::SessionOpen;
  const auto any_sources = [](Open& open) { open.mutable_row_sources()->Resize(static_cast<int>(open.rows()), 0); };
  const auto without = [](v1::SessionLayerKind kind) {
    return [kind](Open& open) {
      open.mutable_layers()->DeleteSubrange(kind == v1::SESSION_LAYER_KIND_SELF ? 0 : 1, 1);
      if (kind == v1::SESSION_LAYER_KIND_SELF) {
        open.clear_max_tokens();
      } else {
        open.clear_sources();
        open.clear_max_source_tokens();
      }
    };
  };
  const auto no_self = without(v1::SESSION_LAYER_KIND_SELF), no_cross = without(v1::SESSION_LAYER_KIND_CROSS);
  const auto one_more_cross = [](Open& open) { *open.add_layers() = v1::SessionLayer(open.layers(1)); };
  const auto dims = [](Open& open) { open.mutable_layers(1)->set_value_head_dim(4); };
  return {
      {"rows", 1, kMaxDim, no_cross},
      {"sources", 1, 2, any_sources},
      {"sources", 0, 0, no_cross},
      {"row_sources[0]", 0, 1, any_sources},
      {"row_sources[1]", 0, 1, any_sources},
      {"max_tokens", 1, kMaxDim},
      {"max_tokens", 0, 0, no_self},
      {"max_source_tokens", 1, kMaxDim},
      {"max_source_tokens", 0, 0, no_cross},
      {"dtype", v1::DTYPE_FP32, v1::DTYPE_BF16, nullptr, kDtypes},
      {"layers[1].kind", 1, 2, one_more_cross, "SESSION_LAYER_KIND_SELF or SESSION_LAYER_KIND_CROSS"},
      {"layers[1].bias", 1, 1, nullptr, "BIAS_NONE or unset"},
      {"layers[0].heads", 1, kMaxDim},
      {"layers[1].heads", 1, kMaxDim},
      {"layers[0].kv_heads", 0, 2, nullptr, "1 to 2"},
      {"layers[1].kv_heads", 0, 2, nullptr, "1 to 2"},
      {"layers[0].head_dim", 1, kMaxHeadDim, [](Open& open) { open.mutable_layers(0)->set_value_head_dim(4); }},
      {"layers[1].head_dim", 1, kMaxHeadDim, dims},
      {"layers[0].value_head_dim", 0, kMaxHeadDim, nullptr, "1 to 6"},
      {"layers[1].value_head_dim", 0, kMaxHeadDim, nullptr, "1 to 6"},
  };
}

// Three tokens and as many queries for each of two rows, for layer 0.
v1::SessionStep StepOf() {
  v1::SessionStep step;
  step.set_step(1);
  step.set_dtype(v1::DTYPE_FP32);
  step.set_key_length(3);
  step.set_query_length(3);
  return step;
}

std::vector<Range<v1::SessionStep>> StepRanges() {
  using Step = v1::SessionStep;
  const auto two = [](google::protobuf::RepeatedField<std::int64_t>* (Step::*list)(), std::int64_t value) {
    return [list, value](Step& step) { (step.*list)()->Resize(2, value); };
  };
  const std::nullptr_t nothing = nullptr;
  const auto bits = [](Step& step) { step.set_key_bits(std::string(2, '\xff')); };
  constexpr StatusCode kPrecondition = StatusCode::FAILED_PRECONDITION;
  return {
      {"step", 1, 1, nothing, "1, the first one", kPrecondition},
      {"layer", 0, 1},
      {"expected_lengths[0]", 0, 0, two(&Step::mutable_expected_lengths, 0), "?"},
      {"expected_lengths[1]", 0, 0, two(&Step::mutable_expected_lengths, 0), "?"},
      {"reorder[0]", 0, 1, two(&Step::mutable_reorder, 0)},
      {"reorder[1]", 0, 1, two(&Step::mutable_reorder, 0)},
      {"truncate[0]", 0, kAny, two(&Step::mutable_truncate, 5)},
      {"truncate[1]", 0, kAny, two(&Step::mutable_truncate, 5)},
      {"key_starts[0]", 0, kMaxPosition, two(&Step::mutable_key_starts, 0)},
      {"key_starts[1]", 0, kMaxPosition, two(&Step::mutable_key_starts, 0)},
      {"key_bits_length", 1, 8, bits},
      {"key_lengths[0]", 0, 3, two(&Step::mutable_key_lengths, 2)},
      {"key_lengths[1]", 0, 3, two(&Step::mutable_key_lengths, 2)},
      {"query_length", 0, kMaxDim},
      {"query_lengths[0]", 0, 3, two(&Step::mutable_query_lengths, 2)},
      {"query_lengths[1]", 0, 3, two(&Step::mutable_query_lengths, 2)},
      {"output_dtype", 0, v1::DTYPE_BF16, nothing, kDtypes},
      {"layout", 0, 2, nothing, "LAYOUT_BATCH_HEAD_SEQUENCE_DIM or LAYOUT_BATCH_SEQUENCE_HEAD_DIM, or unset"},
      {"product_precision", 0, 2, nothing, "PRODUCT_PRECISION_FP32, PRODUCT_PRECISION_BF16 or unset"},
  };
}

// The step with tensors that are right for its lengths, as far as those are reasonable.
v1::SessionRequest Filled(const v1::SessionStep& step) {
  v1::SessionRequest request;
  *request.mutable_step() = step;
  const auto tensor = [](std::int64_t tokens, unsigned seed) {
    return RandomFloats(tokens < 0 || tokens > 100 ? 0 : 2 * 2 * tokens * 4, seed);
  };
  request.set_q(tensor(step.query_length(), 1));
  request.set_k(tensor(step.key_length(), 2));
  request.set_v(tensor(step.key_length(), 3));
  return request;
}

class SessionLimitsTest : public testing::TestWithParam<Door> {
 protected:
  static server::Options Options() {
    server::Options options = TestOptions();
    options.limits.max_dim = kMaxDim;
    options.limits.max_head_dim = kMaxHeadDim;
    return options;
  }

  static void ExpectFault(int code, const v1::ErrorDetail& detail, const std::string& message, StatusCode expected_code,
                          const std::string& field, const std::string& expected, std::int64_t got) {
    EXPECT_EQ(code, expected_code) << message;
    EXPECT_EQ(detail.field(), field) << message;
    if (expected != "?") {
      EXPECT_EQ(detail.expected(), expected);
    }
    EXPECT_EQ(detail.got(), std::to_string(got));
    EXPECT_EQ(message, detail.field() + ": expected " + detail.expected() + ", got " + detail.got());
  }
  template <typename Message>
  static std::string ExpectedOf(const Range<Message>& range) {
    if (!range.expected.empty()) return range.expected;
    return std::to_string(range.lowest) + " to " + std::to_string(range.highest);
  }

  void ExpectOpens(const v1::SessionOpen& open) {
    Stream stream(server_, GetParam(), open);
    EXPECT_TRUE(stream.opened()) << (stream.opened() ? "" : stream.Finish().message);
  }

  const SessionServer server_{Options()};
};

INSTANTIATE_TEST_SUITE_P(Doors, SessionLimitsTest, testing::Values(Door::kGrpc, Door::kLocal),
                         [](const auto& door) { return door.param == Door::kGrpc ? "Grpc" : "Local"; });

TEST_P(SessionLimitsTest, NumbersOfAnOpening) {
  for (const Range<v1::SessionOpen>& range : OpenRanges()) {
    v1::SessionOpen open = Opening();
    if (range.prepare) range.prepare(open);
    for (const std::int64_t value : AtTheEdge(range.lowest, range.highest)) {
      SCOPED_TRACE(testing::Message() << range.field << " " << value);
      SetNumber(open, range.field, value);
      ExpectOpens(open);
    }
    for (const std::int64_t value :
         Beyond(FieldAt(*v1::SessionOpen::descriptor(), range.field), range.lowest, range.highest)) {
      if (value == 0 && range.field.ends_with(".bias")) continue;  // the model's table
      SCOPED_TRACE(testing::Message() << range.field << " " << value);
      SetNumber(open, range.field, value);
      Stream stream(server_, GetParam(), open);
      ASSERT_FALSE(stream.opened());
      const SessionEnd end = stream.Finish();
      ExpectFault(end.code, end.detail, end.message, range.code, "open." + range.field, ExpectedOf(range), value);
    }
  }
}

TEST_P(SessionLimitsTest, NumbersOfAStep) {
  for (const Range<v1::SessionStep>& range : StepRanges()) {
    v1::SessionStep step = StepOf();
    if (range.prepare) range.prepare(step);
    for (const std::int64_t value : AtTheEdge(range.lowest, range.highest)) {
      SCOPED_TRACE(testing::Message() << range.field << " " << value);
      SetNumber(step, range.field, value);
      Stream stream(server_, GetParam(), Opening());
      const v1::SessionStepResult& result = stream.Ask(Filled(step));
      EXPECT_EQ(result.code(), 0) << result.message();
    }
    // A step that is refused changes nothing: the session goes on as before.
    Stream stream(server_, GetParam(), Opening());
    for (const std::int64_t value :
         Beyond(FieldAt(*v1::SessionStep::descriptor(), range.field), range.lowest, range.highest)) {
      SCOPED_TRACE(testing::Message() << range.field << " " << value);
      SetNumber(step, range.field, value);
      const v1::SessionStepResult& result = stream.Ask(Filled(step));
      const std::string field = range.field;
      if (field.starts_with("expected_lengths") && value > 0) {
        EXPECT_EQ(result.code(), StatusCode::FAILED_PRECONDITION) << result.message();
      } else if (field == "key_bits_length" && value == 0) {
        EXPECT_EQ(result.code(), StatusCode::INVALID_ARGUMENT) << result.message();
      } else {
        ExpectFault(result.code(), result.detail(), result.message(), range.code, field, ExpectedOf(range), value);
      }
      if (HasFailure()) return;
    }
    const v1::SessionStepResult& result = stream.Ask(Filled(StepOf()));
    EXPECT_EQ(result.code(), 0) << result.message();
    EXPECT_THAT(result.lengths(), testing::ElementsAre(3, 3)) << range.field;
  }
}

// What a row has room for: max_tokens, in one step or in several.
TEST_P(SessionLimitsTest, RoomOfARow) {
  for (const std::int64_t first : {0, 5, 7, 8}) {
    const std::int64_t room = 8 - first;
    SCOPED_TRACE(testing::Message() << first << " tokens before");
    Stream stream(server_, GetParam(), Opening());
    v1::SessionStep step = StepOf();
    step.set_query_length(0);
    std::uint64_t number = 1;
    if (first > 0) {
      step.set_key_length(first);
      ASSERT_EQ(stream.Ask(Filled(step)).code(), 0);
      step.set_step(++number);
    }
    for (const std::int64_t length : {std::int64_t{-1}, kMaxDim + 1, kAny}) {
      step.set_key_length(length);
      const v1::SessionStepResult& result = stream.Ask(Filled(step));
      EXPECT_EQ(result.message(), "key_length: expected 0 to 9, got " + std::to_string(length));
    }
    step.set_key_length(room + 1);
    const v1::SessionStepResult more = stream.Ask(Filled(step));
    EXPECT_EQ(more.code(), StatusCode::OUT_OF_RANGE) << more.message();
    EXPECT_EQ(more.detail().field(), "key_length");
    EXPECT_EQ(more.detail().got(), std::to_string(room + 1));
    step.mutable_key_lengths()->Resize(2, 0);
    step.set_key_lengths(1, room + 1);
    const v1::SessionStepResult one_row = stream.Ask(Filled(step));
    EXPECT_EQ(one_row.code(), StatusCode::OUT_OF_RANGE) << one_row.message();
    EXPECT_EQ(one_row.detail().field(), "key_lengths[1]");
    step.clear_key_lengths();
    step.set_key_length(room);
    if (room == 0) continue;
    const v1::SessionStepResult& fits = stream.Ask(Filled(step));
    EXPECT_EQ(fits.code(), 0) << fits.message();
    EXPECT_THAT(fits.lengths(), testing::ElementsAre(8, 8));
  }
}

// Bits of source tokens: whole bytes for each source.
TEST_P(SessionLimitsTest, KeyBits) {
  Stream stream(server_, GetParam(), Opening());
  v1::SessionStep step = StepOf();
  step.set_key_bits_length(8);
  for (const std::size_t bytes : {1u, 3u, 4u}) {
    step.set_key_bits(std::string(bytes, '\xff'));
    const v1::SessionStepResult& result = stream.Ask(Filled(step));
    EXPECT_EQ(result.code(), StatusCode::INVALID_ARGUMENT) << bytes;
    EXPECT_EQ(result.detail().field(), "key_bits") << bytes;
  }
  step.set_key_bits(std::string(2, '\xff'));
  EXPECT_EQ(stream.Ask(Filled(step)).code(), 0);
}

// Lists have a number for each row.
TEST_P(SessionLimitsTest, ListsOfAnotherLength) {
  Stream stream(server_, GetParam(), Opening());
  for (const char* const list : {"reorder", "truncate", "key_starts", "key_lengths", "query_lengths"}) {
    for (const int count : {1, 3}) {
      SCOPED_TRACE(testing::Message() << list << ", values: " << count);
      v1::SessionStep step = StepOf();
      for (int i = 0; i < count; ++i) SetNumber(step, std::string(list) + "[" + std::to_string(i) + "]", 1);
      const v1::SessionStepResult& result = stream.Ask(Filled(step));
      EXPECT_EQ(result.code(), StatusCode::INVALID_ARGUMENT) << result.message();
      EXPECT_EQ(result.message(),
                std::string(list) + ": expected none or 2 (batch) values, got " + std::to_string(count) + " values");
    }
  }
}

TEST_P(SessionLimitsTest, TimesOfAStepAndOfAnOpening) {
  const struct {
    std::int64_t seconds;
    std::int32_t nanos;
    bool valid;
  } kTimes[] = {{0, -1, false},
                {-1, 0, false},
                {600, 999'999'999, true},
                {600, 1'000'000'000, false},
                {600, 0, true},
                {315'576'000'000, 0, true},
                {315'576'000'001, 0, false}};
  for (const auto& time : kTimes) {
    SCOPED_TRACE(testing::Message() << time.seconds << " s " << time.nanos);
    const std::string got = std::to_string(time.seconds) + " seconds and " + std::to_string(time.nanos) + " nanos";
    v1::SessionStep step = StepOf();
    step.mutable_timeout()->set_seconds(time.seconds);
    step.mutable_timeout()->set_nanos(time.nanos);
    Stream stream(server_, GetParam(), Opening());
    const v1::SessionStepResult& result = stream.Ask(Filled(step));
    EXPECT_EQ(result.code(), time.valid ? StatusCode::OK : StatusCode::INVALID_ARGUMENT) << result.message();
    if (!time.valid) {
      EXPECT_EQ(result.detail().field(), "timeout");
      EXPECT_EQ(result.detail().got(), got);
    }
    v1::SessionOpen open = Opening();
    *open.mutable_grace() = step.timeout();
    Stream kept(server_, GetParam(), open);
    ASSERT_EQ(kept.opened(), time.valid);
    if (!time.valid) {
      EXPECT_EQ(kept.Finish().code, StatusCode::INVALID_ARGUMENT);
    }
    kept.SayClose();
  }
}

// What the reservation counts: rows and layers, whatever --max_dim allows.
TEST(SessionSizesTest, RowsAndLayers) {
  const SessionServer server;
  const auto opened = [&](const v1::SessionOpen& open) {
    Stream stream(server, Door::kGrpc, open);
    const bool opened = stream.opened();
    if (!opened) {
      EXPECT_EQ(stream.Finish().code, StatusCode::INVALID_ARGUMENT);
    }
    return opened;
  };
  v1::SessionOpen open = Opening();
  open.mutable_layers()->DeleteSubrange(1, 1);
  open.clear_sources();
  open.clear_max_source_tokens();
  open.set_max_tokens(1);
  open.set_rows(65536);
  EXPECT_TRUE(opened(open));
  open.set_rows(65537);
  EXPECT_FALSE(opened(open));
  open.set_rows(1);
  const v1::SessionLayer layer = open.layers(0);
  while (open.layers_size() < 1024) *open.add_layers() = layer;
  EXPECT_TRUE(opened(open));
  *open.add_layers() = layer;
  EXPECT_FALSE(opened(open));
  open.clear_layers();
  EXPECT_FALSE(opened(open));
}

// A new number has a range, or a reason here why it has none.
TEST(SessionSizesTest, EveryNumberHasALimit) {
  std::set<std::string> known = {
      "open.model",
      "open.version",
      "open.layers.table",  // session_test.cc
      "open.layers.scale",  // contract::CheckScale, as in a call
      "open.grace.seconds",
      "open.grace.nanos",
      "step.timeout.seconds",
      "step.timeout.nanos",  // Times...
      "step.key_length",     // RoomOfARow
      "step.key_bits",
      "step.dtype",  // KeyBits; a dtype other than the session's tensors are of
      "cancel.step",
      "resume.token",  // which name something that is there or is not
      "q",
      "k",
      "v",
  };
  for (const char* const place : {"q_shared", "k_shared", "v_shared", "output_shared", "log_sum_exp_shared"}) {
    for (const char* const field : {".region", ".offset"}) known.insert(std::string("step.") + place + field);
  }
  for (const auto& range : OpenRanges()) known.insert("open." + WithoutElements(range.field));
  for (const auto& range : StepRanges()) known.insert("step." + WithoutElements(range.field));
  for (const std::string& field : FieldsOf(*v1::SessionRequest::descriptor()))
    EXPECT_TRUE(known.contains(field)) << field;
}

}  // namespace
}  // namespace attnd::e2e
