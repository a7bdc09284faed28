// Each field of a request at its bounds and one beyond them, and each limit on a request at its value and one beyond. A
// new field without a row fails.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "attention/test_region.h"
#include "errors/field_error.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "server/attention/bias.h"
#include "server/attention/validation.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

using google::protobuf::FieldDescriptor;
using Request = v1::ComputeAttentionRequest;

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kLastPosition = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kTableHeads = 6;

Limits SmallLimits() {
  Limits limits;
  limits.max_dim = 16;
  limits.max_head_dim = 8;
  return limits;
}

// Two sequences of 5 queries and 9 keys, without bias.
Request Valid() {
  Request request;
  request.set_bias(v1::BIAS_NONE);
  request.set_mask(v1::MASK_CAUSAL);
  request.set_batch(2);
  request.set_heads(6);
  request.set_query_length(5);
  request.set_key_length(9);
  request.set_head_dim(4);
  request.set_dtype(v1::DTYPE_FP32);
  return request;
}

// Bytes of FP32 values; 0 if that is no size.
std::size_t Bytes(std::initializer_list<std::int64_t> sizes) {
  std::int64_t product = sizeof(float);
  for (const std::int64_t size : sizes) {
    if (size <= 0 || size > 1000) return 0;
    product *= size;
  }
  return static_cast<std::size_t>(product);
}

// Tensors as large as the request says.
RequestTensors TensorsOf(const Request& r) {
  const auto or_else = [](std::int64_t value, std::int64_t absent) { return value == 0 ? absent : value; };
  const std::int64_t kv_batch = or_else(r.kv_batch(), r.batch()), kv_heads = or_else(r.kv_heads(), r.heads());
  RequestTensors tensors;
  tensors.q.size = Bytes({r.batch(), r.heads(), r.query_length(), r.head_dim()});
  tensors.k.size = Bytes({kv_batch, kv_heads, r.key_length(), r.head_dim()});
  tensors.v.size = Bytes({kv_batch, kv_heads, r.key_length(), or_else(r.value_head_dim(), r.head_dim())});
  return tensors;
}

const model::Model& Model() {
  static const model::Model model = [] {
    const std::vector<float> values(std::size_t{4} * kTableHeads, 1.0F);
    bias::BiasTable table = *bias::BiasTable::Create(
        kTableHeads, bias::T5Rule{.num_buckets = 4, .max_distance = 6, .bidirectional = false, .values = values});
    return model::Model("m", 1, "test", absl::UnixEpoch(),
                        {.tables = {{"decoder", std::move(table)}}, .format = "", .architecture = ""}, "hash");
  }();
  return model;
}

absl::Status StatusOf(const Request& request, const RequestTensors& tensors, const Limits& limits = SmallLimits()) {
  const bool without_bias = request.bias() == v1::BIAS_NONE;
  return AttentionValidator(limits).Validate(request, tensors, without_bias ? nullptr : &Model()).status();
}
absl::Status StatusOf(const Request& request, const Limits& limits = SmallLimits()) {
  return StatusOf(request, TensorsOf(request), limits);
}

void ExpectBlames(const absl::Status& status, const std::string& field, absl::StatusCode code) {
  EXPECT_EQ(status.code(), code) << status;
  const auto fault = errors::FaultOf(status);
  ASSERT_TRUE(fault.has_value()) << status;
  EXPECT_EQ(fault->field, field) << status;
}

struct Row {
  const char* field;
  std::string blamed;  // where it is refused
  std::function<void(Request&, std::int64_t)> set;
  std::vector<std::int64_t> taken, refused;
};

// A list of one value for each of the two sequences.
using List = google::protobuf::RepeatedField<std::int64_t>* (Request::*)();
std::function<void(Request&, std::int64_t)> Second(List list) {
  return [list](Request& r, std::int64_t value) {
    (r.*list)()->Add(0);
    (r.*list)()->Add(value);
  };
}

std::vector<Row> Rows() {
  const auto with_table = [](Request& r) {
    r.clear_bias();
    r.set_model("m");
  };
  return {
      {"batch", "batch", [](Request& r, auto v) { r.set_batch(v); }, {1, 2, 16}, {0, -1, 17}},
      {"heads", "heads", [](Request& r, auto v) { r.set_heads(v); }, {1, 6, 16}, {0, -1, 17}},
      {"kv_heads", "kv_heads", [](Request& r, auto v) { r.set_kv_heads(v); }, {0, 1, 2, 3, 6}, {-1, 4, 5, 7, 12}},
      {"query_length", "query_length", [](Request& r, auto v) { r.set_query_length(v); }, {1, 16}, {0, -1, 17}},
      {"key_length", "key_length", [](Request& r, auto v) { r.set_key_length(v); }, {1, 16}, {0, -1, 17}},
      {"head_dim", "head_dim", [](Request& r, auto v) { r.set_head_dim(v); }, {1, 8}, {0, -1, 9, 16}},
      {"value_head_dim", "value_head_dim", [](Request& r, auto v) { r.set_value_head_dim(v); }, {0, 1, 8}, {-1, 9, 16}},
      {"query_offset",
       "query_offset",
       [](Request& r, auto v) { r.set_query_offset(v); },
       {-5, 0, 9, kLastPosition - 5},
       {-6, kLastPosition - 4}},
      {"query_offsets",
       "query_offsets[1]",
       Second(&Request::mutable_query_offsets),
       {-5, 9, kLastPosition - 5},
       {-6, kLastPosition - 4}},
      {"query_lengths", "query_lengths[1]", Second(&Request::mutable_query_lengths), {0, 5}, {-1, 6, 9}},
      {"key_lengths", "key_lengths[1]", Second(&Request::mutable_key_lengths), {0, 6, 9}, {-1, 10}},
      {"key_starts", "key_starts[1]", Second(&Request::mutable_key_starts), {0, 6, 9}, {-1, 10}},
      {"prefix_lengths", "prefix_lengths[1]", Second(&Request::mutable_prefix_lengths), {0, 6, 9}, {-1, 10}},
      {"window_left",
       "window_left",
       [](Request& r, auto v) { r.set_window_left(v); },
       {0, kLastPosition},
       {-1, kLastPosition + 1}},
      {"window_right",
       "window_right",
       [](Request& r, auto v) { r.set_window_right(v); },
       {0, kLastPosition},
       {-1, kLastPosition + 1}},
      {"kv_batch",
       "kv_batch",
       [](Request& r, auto v) {
         r.set_kv_batch(v);
         r.mutable_kv_rows()->Resize(2, 0);
       },
       {0, 1, 2, 16},
       {-1, 17}},
      {"kv_rows",
       "kv_rows[1]",
       [](Request& r, auto v) {
         r.set_kv_batch(3);
         Second (&Request::mutable_kv_rows)(r, v);
       },
       {0, 2},
       {-1, 3}},
      {"first_head",
       "first_head",
       [with_table](Request& r, auto v) {
         with_table(r);
         r.set_heads(2);
         r.set_first_head(v);
       },
       {0, 4},
       {-1, 5, 6}},
      {"table_heads",
       "heads",  // of the whole call
       [with_table](Request& r, auto v) {
         with_table(r);
         r.set_heads(2);
         r.set_first_head(0);
         r.set_table_heads(v);
       },
       {0, 6},
       {-1, 2, 5, 7}},
      // A second sequence of the second row, which has the positions 5 to 9.
      {"query_segments",
       "query_segments[2]",
       [](Request& r, auto v) {
         r.set_key_length(5);
         for (const std::int64_t start : {std::int64_t{0}, std::int64_t{5}, v}) r.add_query_segments(start);
       },
       {6, 9},
       {-1, 0, 5, 10}},
      {"key_segments",
       "key_segments[2]",
       [](Request& r, auto v) {
         for (const std::int64_t start : {0, 5, 7}) r.add_query_segments(start);
         for (const std::int64_t start : {std::int64_t{0}, std::int64_t{9}, v}) r.add_key_segments(start);
       },
       {10, 17},
       {-1, 0, 9, 18}},
  };
}

TEST(RequestLimitsTest, EveryNumberHasARow) {
  std::set<std::string> rows;
  for (const Row& row : Rows()) rows.insert(row.field);
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *Request::descriptor()->field(i);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
      EXPECT_TRUE(rows.contains(field.name())) << field.name();
    }
  }
}

TEST(RequestLimitsTest, NumbersAreTakenUpToTheirBoundsAndNotBeyond) {
  for (const Row& row : Rows()) {
    for (const std::int64_t value : row.taken) {
      SCOPED_TRACE(row.field + std::string(" = ") + std::to_string(value));
      Request request = Valid();
      row.set(request, value);
      EXPECT_TRUE(StatusOf(request).ok()) << StatusOf(request);
    }
    std::vector<std::int64_t> refused = row.refused;
    refused.insert(refused.end(), {kMost, kMost - 1, kLeast, kLeast + 1, std::int64_t{1} << 32, kLastPosition});
    for (const std::int64_t value : refused) {
      if (std::find(row.taken.begin(), row.taken.end(), value) != row.taken.end()) continue;
      SCOPED_TRACE(row.field + std::string(" = ") + std::to_string(value));
      Request request = Valid();
      row.set(request, value);
      ExpectBlames(StatusOf(request), row.blamed, absl::StatusCode::kInvalidArgument);
    }
  }
}

TEST(RequestLimitsTest, ListsHaveAValueForEachSequenceOrNone) {
  const struct {
    const char* field;
    List list;
  } kLists[] = {
      {"query_offsets", &Request::mutable_query_offsets},   {"query_lengths", &Request::mutable_query_lengths},
      {"key_lengths", &Request::mutable_key_lengths},       {"key_starts", &Request::mutable_key_starts},
      {"prefix_lengths", &Request::mutable_prefix_lengths}, {"kv_rows", &Request::mutable_kv_rows}};
  for (const auto& [field, list] : kLists) {
    for (int count = 0; count <= 4; ++count) {
      SCOPED_TRACE(field + std::string(" of ") + std::to_string(count));
      Request request = Valid();
      (request.*list)()->Resize(count, 0);
      if (count == 0 || count == 2) {
        EXPECT_TRUE(StatusOf(request).ok()) << StatusOf(request);
      } else {
        ExpectBlames(StatusOf(request), field, absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST(RequestLimitsTest, BytesAndValuesOfOtherSizesAreRefused) {
  for (const std::size_t bytes : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 8u, 18u}) {
    Request request = Valid();
    request.set_key_bits(std::string(bytes, '\xff'));
    if (bytes == 0 || bytes == 4) {  // two bytes for the 9 keys of each sequence
      EXPECT_TRUE(StatusOf(request).ok()) << bytes;
    } else {
      ExpectBlames(StatusOf(request), "key_bits", absl::StatusCode::kInvalidArgument);
    }
  }
  for (const int values : {0, 1, 6, 9, 53, 54, 55, 108}) {
    Request request = Valid();
    request.mutable_key_bias()->Resize(values, 1);
    if (values == 0 || values == 54) {
      EXPECT_TRUE(StatusOf(request).ok()) << values;
    } else {
      ExpectBlames(StatusOf(request), "key_bias", absl::StatusCode::kInvalidArgument);
    }
  }
}

TEST(RequestLimitsTest, TensorsHaveTheirSizeToTheByte) {
  const struct {
    const char* field;
    TensorBytes RequestTensors::*tensor;
  } kTensors[] = {{"q", &RequestTensors::q}, {"k", &RequestTensors::k}, {"v", &RequestTensors::v}};
  for (const auto& [field, tensor] : kTensors) {
    for (const int more : {-1000, -4, -1, 0, 1, 4, 1000}) {
      SCOPED_TRACE(field + std::string(" and ") + std::to_string(more));
      Request request = Valid();
      request.set_kv_heads(3);
      request.set_value_head_dim(3);
      request.set_kv_batch(3);
      request.mutable_kv_rows()->Resize(2, 2);
      RequestTensors tensors = TensorsOf(request);
      std::size_t& size = (tensors.*tensor).size;
      size = more < -static_cast<int>(size) ? 0 : size + static_cast<std::size_t>(more);
      const absl::Status status = StatusOf(request, tensors);
      if (more == 0) {
        EXPECT_TRUE(status.ok()) << status;
      } else {
        ExpectBlames(status, field, absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST(RequestLimitsTest, EveryEnumTakesItsValuesAndNoOthers) {
  std::set<std::string> required = {"dtype"};
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *Request::descriptor()->field(i);
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM) continue;
    for (int value = -1; value <= field.enum_type()->value_count(); ++value) {
      SCOPED_TRACE(field.name() + " = " + std::to_string(value));
      Request request = Valid();
      if (field.name() == "bias" && value == 0) request.set_model("m");
      request.GetReflection()->SetEnumValue(&request, &field, value);
      RequestTensors tensors = TensorsOf(request);
      if (field.name() == "dtype" && value > 1) {
        for (TensorBytes* tensor : {&tensors.q, &tensors.k, &tensors.v}) tensor->size /= 2;
      }
      const bool is_value = field.enum_type()->FindValueByNumber(value) != nullptr;
      // Validate relies on CheckBias for `bias`.
      const absl::Status status = field.name() == "bias" ? CheckBias(request) : StatusOf(request, tensors);
      if (is_value && !(value == 0 && required.contains(field.name()))) {
        EXPECT_TRUE(status.ok()) << status;
      } else {
        ExpectBlames(status, field.name(), absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

// Output and log-sum-exp together: 2 x 6 x 5 rows of 4 values and one.
TEST(RequestLimitsTest, ResultsUpToTheLimit) {
  for (const v1::Layout layout : {v1::LAYOUT_BATCH_HEAD_SEQUENCE_DIM, v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM}) {
    for (const bool log_sum_exp : {false, true}) {
      Request request = Valid();
      request.set_layout(layout);
      request.set_return_log_sum_exp(log_sum_exp);
      Limits limits = SmallLimits();
      limits.max_result_bytes = 2 * 6 * 5 * (log_sum_exp ? 5 : 4) * 4;
      EXPECT_TRUE(StatusOf(request, limits).ok()) << StatusOf(request, limits);
      --limits.max_result_bytes;
      ExpectBlames(StatusOf(request, limits), "output", absl::StatusCode::kResourceExhausted);
      limits.max_result_bytes = 0;
      ExpectBlames(StatusOf(request, limits), "output", absl::StatusCode::kResourceExhausted);
    }
  }
}

TEST(RequestLimitsTest, ResultsThatAreSentUpToTheirRoom) {
  ValidAttention valid{};
  valid.output_bytes = 100;
  valid.log_sum_exp_bytes = 20;
  EXPECT_TRUE(CheckSent(valid, 120).ok());
  ExpectBlames(CheckSent(valid, 119), "log_sum_exp", absl::StatusCode::kResourceExhausted);
  ExpectBlames(CheckSent(valid, 100), "log_sum_exp", absl::StatusCode::kResourceExhausted);
  ExpectBlames(CheckSent(valid, 99), "output", absl::StatusCode::kResourceExhausted);

  // What is in shared memory is not sent.
  TestRegion region;
  valid.shared = std::make_shared<SharedParts>();
  valid.shared->output = *region.memory.Resolve("", region.At(0), 100);
  EXPECT_TRUE(CheckSent(valid, 20).ok());
  ExpectBlames(CheckSent(valid, 19), "log_sum_exp", absl::StatusCode::kResourceExhausted);
  valid.shared->log_sum_exp = *region.memory.Resolve("", region.At(0), 20);
  EXPECT_TRUE(CheckSent(valid, 0).ok());
  valid.shared->output.region = nullptr;
  EXPECT_TRUE(CheckSent(valid, 100).ok());
  ExpectBlames(CheckSent(valid, 99), "output", absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace attnd::server
