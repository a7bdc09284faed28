// Each field of an attention request at its limits and one beyond, by every door: a unary call, a stream, a local call.
// The request is right otherwise, its tensors included, so that nothing else refuses it.

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "e2e_support.h"
#include "field_limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "raw_region.h"
#include "temp_folder.h"

namespace attnd::e2e {
namespace {

using Request = v1::ComputeAttentionRequest;
using grpc::StatusCode;

constexpr std::int64_t kMaxDim = 9, kMaxHeadDim = 6;
constexpr std::int64_t kMaxPosition = std::numeric_limits<std::int32_t>::max();

// The numbers that a field may have.
struct Range {
  const char* field;
  std::int64_t lowest, highest;
  std::function<void(Request&)> prepare = [](Request&) {};  // what else the request needs, whatever the number
  std::string expected = "";                                // empty: "<lowest> to <highest>"
  const char* named = nullptr;                              // by the error, if not `field`
  bool has_reference = true;
};

Request Base() {
  Request request;
  request.set_model(kModel);
  request.set_batch(2);
  request.set_heads(kHeads);
  request.set_query_length(5);
  request.set_key_length(7);
  request.set_head_dim(4);
  request.set_dtype(v1::DTYPE_FP32);
  request.set_return_log_sum_exp(true);
  return request;
}

void WithoutBias(Request& request) {
  request.set_bias(v1::BIAS_NONE);
  request.clear_model();
}

// One query head of the table's two.
void OneHead(Request& request) {
  request.set_heads(1);
  request.set_first_head(0);
}

std::vector<Range> Ranges() {
  constexpr char kDtypes[] = "DTYPE_FP32, DTYPE_FP16 or DTYPE_BF16";
  const auto rows_of_keys = [](Request& r) { r.mutable_kv_rows()->Resize(2, 0); };
  const auto three_rows = [](Request& r) {
    r.set_kv_batch(3);
    r.mutable_kv_rows()->Resize(2, 0);
  };
  // Two sequences in each of two rows; the second one's begin is the field.
  const auto segments = [](Request& r) {
    for (const int start : {0, 5, 7}) r.add_query_segments(start);
    for (const int start : {0, 7, 9}) r.add_key_segments(start);
  };
  return {
      {"batch", 1, kMaxDim},
      {"heads", 1, kMaxDim, WithoutBias},
      {"kv_heads", 0, kHeads, {[](Request&) {}}, "1 to 2"},
      {"query_length", 1, kMaxDim},
      {"key_length", 1, kMaxDim},
      {"head_dim", 1, kMaxHeadDim, [](Request& r) { r.set_value_head_dim(4); }},
      {"value_head_dim", 0, kMaxHeadDim, {[](Request&) {}}, "1 to 6"},
      {"kv_batch", 0, kMaxDim, rows_of_keys, "1 to 9", nullptr, false},
      {"kv_rows[0]", 0, 2, three_rows, "", nullptr, false},
      {"kv_rows[1]", 0, 2, three_rows, "", nullptr, false},
      {"dtype", v1::DTYPE_FP32, v1::DTYPE_BF16, {[](Request&) {}}, kDtypes, nullptr, false},
      {"output_dtype", 0, v1::DTYPE_BF16, {[](Request&) {}}, kDtypes, nullptr, false},
      {"layout",
       0,
       2,
       {[](Request&) {}},
       "LAYOUT_BATCH_HEAD_SEQUENCE_DIM or LAYOUT_BATCH_SEQUENCE_HEAD_DIM, or unset",
       nullptr,
       false},
      {"mask", 0, 2, {[](Request&) {}}, "MASK_CAUSAL, MASK_NONE or unset"},
      {"product_precision", 0, 2, {[](Request&) {}}, "PRODUCT_PRECISION_FP32, PRODUCT_PRECISION_BF16 or unset"},
      {"bias", v1::BIAS_NONE, v1::BIAS_NONE, [](Request& r) { r.clear_model(); }, "BIAS_NONE or unset"},
      {"first_head", 0, 1, OneHead},
      {"table_heads", 2, 2, OneHead, "2 (the heads of table \"decoder\" of model \"test\"), or first_head to be set",
       "heads"},
      {"query_offset", -5, kMaxPosition - 5},
      {"query_offsets[0]", -5, kMaxPosition - 5, [](Request& r) { r.mutable_query_offsets()->Resize(2, 1); }},
      {"query_offsets[1]", -5, kMaxPosition - 5, [](Request& r) { r.mutable_query_offsets()->Resize(2, 1); }},
      {"query_lengths[0]", 0, 5, [](Request& r) { r.mutable_query_lengths()->Resize(2, 3); }},
      {"query_lengths[1]", 0, 5, [](Request& r) { r.mutable_query_lengths()->Resize(2, 3); }},
      {"key_lengths[0]", 0, 7, [](Request& r) { r.mutable_key_lengths()->Resize(2, 3); }},
      {"key_lengths[1]", 0, 7, [](Request& r) { r.mutable_key_lengths()->Resize(2, 3); }},
      {"key_starts[0]", 0, 7, [](Request& r) { r.mutable_key_starts()->Resize(2, 3); }},
      {"key_starts[1]", 0, 7, [](Request& r) { r.mutable_key_starts()->Resize(2, 3); }},
      {"prefix_lengths[0]", 0, 7, [](Request& r) { r.mutable_prefix_lengths()->Resize(2, 3); }},
      {"prefix_lengths[1]", 0, 7, [](Request& r) { r.mutable_prefix_lengths()->Resize(2, 3); }},
      {"window_left", 0, kMaxPosition},
      {"window_right", 0, kMaxPosition},
      {"query_segments[2]", 6, 9, segments, "", nullptr, false},
      {"key_segments[2]", 8, 13, segments, "", nullptr, false},
  };
}

// Makes the tensors right for the sizes, as far as those are reasonable.
Request Filled(Request request) {
  const std::int64_t key_heads = request.kv_heads() == 0 ? request.heads() : request.kv_heads();
  const std::int64_t key_batch = request.kv_batch() == 0 ? request.batch() : request.kv_batch();
  const std::int64_t value_dim = request.value_head_dim() == 0 ? request.head_dim() : request.value_head_dim();
  const auto tensor = [&](std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t dim, unsigned seed) {
    std::int64_t count = 1;
    for (const std::int64_t size : {batch, heads, rows, dim}) count = size < 0 || size > 100 ? 0 : count * size;
    return request.dtype() == v1::DTYPE_FP32 ? RandomFloats(count, seed)
                                             : std::string(static_cast<std::size_t>(2 * count), '\0');
  };
  request.set_q(tensor(request.batch(), request.heads(), request.query_length(), request.head_dim(), 1));
  request.set_k(tensor(key_batch, key_heads, request.key_length(), request.head_dim(), 2));
  request.set_v(tensor(key_batch, key_heads, request.key_length(), value_dim, 3));
  return request;
}

class AttentionLimitsTest : public testing::Test {
 protected:
  AttentionLimitsTest() : server_(Options(folder_.path())), local_(folder_.path() + "/s.shm") {
    EXPECT_EQ(local_.Greet().code(), 0);
  }

  static server::Options Options(const std::string& folder) {
    server::Options options = TestOptions();
    options.limits.max_dim = kMaxDim;
    options.limits.max_head_dim = kMaxHeadDim;
    options.listen.push_back("unix:" + folder + "/s");
    return options;
  }

  void ExpectAccepted(const Request& request, bool has_reference) {
    v1::ComputeAttentionResponse response;
    const grpc::Status status = server_.Compute(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    if (!status.ok()) return;
    if (has_reference) ExpectMatchesReference(request, response);
    const v1::StreamAttentionResponse answer = AsPiece(request);
    EXPECT_EQ(answer.code(), 0) << answer.message();
    EXPECT_EQ(answer.output(), response.output());
    EXPECT_EQ(answer.log_sum_exp(), response.log_sum_exp());
    const v1::LocalAnswer local = local_.Call(request);
    EXPECT_EQ(local.code(), 0) << local.message();
    EXPECT_EQ(local.result().output(), response.output());
    EXPECT_EQ(local.result().log_sum_exp(), response.log_sum_exp());
  }

  void ExpectRefused(const Request& request, const std::string& field, const std::string& expected,
                     const std::string& got) {
    v1::ComputeAttentionResponse response;
    const grpc::Status status = server_.Compute(request, &response);
    ASSERT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
    const v1::ErrorDetail detail = DetailOf(status);
    EXPECT_EQ(detail.field(), field) << status.error_message();
    if (!expected.empty()) {
      EXPECT_EQ(detail.expected(), expected);
    }
    EXPECT_EQ(detail.got(), got);
    EXPECT_EQ(status.error_message(), detail.field() + ": expected " + detail.expected() + ", got " + detail.got());
    const v1::StreamAttentionResponse answer = AsPiece(request);
    EXPECT_EQ(answer.code(), status.error_code());
    EXPECT_EQ(answer.message(), status.error_message());
    const v1::LocalAnswer local = local_.Call(request);
    EXPECT_EQ(local.code(), status.error_code());
    EXPECT_EQ(local.message(), status.error_message());
  }

  v1::StreamAttentionResponse AsPiece(const Request& request) {
    grpc::ClientContext context;
    const auto stream = server_.attention().StreamAttention(&context);
    v1::StreamAttentionResponse answer;
    EXPECT_TRUE(stream->Write(PieceOf(1, request)));
    EXPECT_TRUE(stream->Read(&answer));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return answer;
  }

  const test::TempFolder folder_;
  TestServer server_;
  test::LocalCaller local_;
};

TEST_F(AttentionLimitsTest, NumbersAtTheirLimits) {
  for (const Range& range : Ranges()) {
    for (const std::int64_t value : AtTheEdge(range.lowest, range.highest)) {
      SCOPED_TRACE(testing::Message() << range.field << " " << value);
      Request request = Base();
      range.prepare(request);
      SetNumber(request, range.field, value);
      ExpectAccepted(Filled(request), range.has_reference);
    }
  }
}

TEST_F(AttentionLimitsTest, NumbersBeyondTheirLimits) {
  for (const Range& range : Ranges()) {
    const std::string expected =
        range.expected.empty() ? std::to_string(range.lowest) + " to " + std::to_string(range.highest) : range.expected;
    const std::string field = range.named == nullptr ? range.field : range.named;
    for (const std::int64_t value : Beyond(FieldAt(*Request::descriptor(), range.field), range.lowest, range.highest)) {
      // 0 is an unset field, which has a meaning of its own.
      if (value == 0 && (field == "bias" || field == "heads") && range.lowest > 0 &&
          std::string(range.field) != "heads") {
        continue;
      }
      SCOPED_TRACE(testing::Message() << range.field << " " << value);
      Request request = Base();
      range.prepare(request);
      SetNumber(request, range.field, value);
      ExpectRefused(Filled(request), field, expected, std::to_string(value));
      if (HasFailure()) return;
    }
  }
}

// Lists have one number for each sequence of the batch.
TEST_F(AttentionLimitsTest, ListsOfAnotherLength) {
  std::set<std::string> seen;
  for (const Range& range : Ranges()) {
    const std::string field = WithoutElements(range.field);
    if (field == range.field || field.ends_with("_segments") || !seen.insert(field).second) continue;
    for (const int count : {1, 3}) {
      SCOPED_TRACE(testing::Message() << field << ", values: " << count);
      Request request = Base();
      if (field == "kv_rows") request.set_kv_batch(2);
      for (int i = 0; i < count; ++i) SetNumber(request, field + "[" + std::to_string(i) + "]", 1);
      ExpectRefused(Filled(request), field, "none or 2 (batch) values", std::to_string(count) + " values");
    }
  }
  EXPECT_EQ(seen.size(), 6u);
}

TEST_F(AttentionLimitsTest, BytesOneMoreAndOneFewer) {
  for (std::string* (Request::*tensor)() : {&Request::mutable_q, &Request::mutable_k, &Request::mutable_v}) {
    const std::string field = tensor == &Request::mutable_q ? "q" : tensor == &Request::mutable_k ? "k" : "v";
    for (const int change : {-1, 1, 4, -4}) {
      SCOPED_TRACE(testing::Message() << field << " " << change);
      Request request = Filled(Base());
      std::string& bytes = *(request.*tensor)();
      bytes.resize(bytes.size() + static_cast<std::size_t>(change));
      ExpectRefused(request, field, "", std::to_string(bytes.size()) + " bytes");
    }
  }
}

// A bit for each key, in whole bytes for each sequence.
TEST_F(AttentionLimitsTest, KeyBits) {
  const struct {
    std::int64_t keys;
    std::size_t bytes;
  } kCases[] = {{1, 1}, {7, 1}, {8, 1}, {9, 2}};
  for (const auto& c : kCases) {
    Request request = Base();
    request.set_key_length(c.keys);
    for (std::size_t bytes = 1; bytes <= 2 * c.bytes + 2; ++bytes) {
      SCOPED_TRACE(testing::Message() << c.keys << " keys, " << bytes << " bytes");
      request.set_key_bits(std::string(bytes, '\x55'));
      if (bytes == 2 * c.bytes) {
        ExpectAccepted(Filled(request), true);
      } else {
        ExpectRefused(Filled(request), "key_bits", "", std::to_string(bytes) + " bytes");
      }
    }
  }
}

// A number for each query head and key, also where heads share their keys.
TEST_F(AttentionLimitsTest, KeyBias) {
  Request request = Base();
  request.set_kv_heads(1);
  for (const int values : {1, 7, 13, 14, 15, 21, 28}) {
    SCOPED_TRACE(values);
    request.mutable_key_bias()->Resize(values, 0.25F);
    if (values == 14) {
      ExpectAccepted(Filled(request), true);
    } else {
      ExpectRefused(Filled(request), "key_bias", "none or 2 (heads) x 7 (keys) values",
                    std::to_string(values) + " values");
    }
  }
  for (const float value : {INFINITY, -INFINITY, NAN}) {
    request.mutable_key_bias()->Resize(14, 0.25F);
    request.set_key_bias(13, value);
    ExpectRefused(Filled(request), "key_bias[13]", "a finite number", testing::PrintToString(value));
  }
}

TEST_F(AttentionLimitsTest, Scale) {
  Request request = Base();
  for (const float value : {0.0F, -1.0F, FLT_MIN, FLT_TRUE_MIN}) {
    request.set_scale(value);
    ExpectAccepted(Filled(request), true);
  }
  for (const float value : {INFINITY, -INFINITY, NAN}) {
    request.set_scale(value);
    ExpectRefused(Filled(request), "scale", "a finite number", testing::PrintToString(value));
  }
}

// Places in a region: the last one that fits, and one byte (or number) later.
TEST_F(AttentionLimitsTest, PlacesInSharedMemory) {
  constexpr std::uint64_t kBytes = 1 << 16;
  const test::RawRegion region(local_.raw(), kBytes);
  const Request sent = Filled(Base());
  const std::uint64_t log_sum_exp = std::uint64_t{2} * kHeads * 5 * 4;
  const struct {
    const char* field;
    v1::SharedTensor* (Request::*place)();
    std::uint64_t size;
    void (Request::*clear)();
  } kPlaces[] = {
      {"q_shared", &Request::mutable_q_shared, sent.q().size(), &Request::clear_q},
      {"k_shared", &Request::mutable_k_shared, sent.k().size(), &Request::clear_k},
      {"v_shared", &Request::mutable_v_shared, sent.v().size(), &Request::clear_v},
      {"output_shared", &Request::mutable_output_shared, sent.q().size(), nullptr},
      {"log_sum_exp_shared", &Request::mutable_log_sum_exp_shared, log_sum_exp, nullptr},
  };
  for (const auto& place : kPlaces) {
    const std::uint64_t last = kBytes - place.size;
    for (const std::uint64_t offset : {std::uint64_t{0}, last - 4, last, last + 4, kBytes - 4, kBytes, kBytes + 4,
                                       std::uint64_t{0} - 4, std::uint64_t{1} << 63}) {
      SCOPED_TRACE(testing::Message() << place.field << " at " << offset);
      Request request = sent;
      *(request.*place.place)() = region.At(offset);
      if (place.clear != nullptr) (request.*place.clear)();
      v1::ComputeAttentionResponse response;
      const grpc::Status status = server_.Compute(request, &response);
      if (offset <= last) {
        EXPECT_TRUE(status.ok()) << status.error_message();
        continue;
      }
      EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
      EXPECT_THAT(DetailOf(status).field(), testing::StartsWith(place.field));
      const v1::LocalAnswer local = local_.Call(request);
      EXPECT_EQ(local.code(), StatusCode::INVALID_ARGUMENT);
      EXPECT_EQ(local.message(), status.error_message());
    }
  }
}

// A new field has a range, or a reason here why it has none.
TEST_F(AttentionLimitsTest, EveryFieldHasALimit) {
  std::set<std::string> known = {
      "model", "version",  "table",     // bad_input_test.cc
      "q",     "k",        "v",         // BytesOneMoreAndOneFewer
      "scale", "key_bits", "key_bias",  // tests by those names
  };
  for (const char* const place : {"q_shared", "k_shared", "v_shared", "output_shared", "log_sum_exp_shared"}) {
    known.insert({std::string(place) + ".region", std::string(place) + ".offset"});  // PlacesInSharedMemory
  }
  for (const Range& range : Ranges()) known.insert(WithoutElements(range.field));
  for (const std::string& field : FieldsOf(*Request::descriptor())) EXPECT_TRUE(known.contains(field)) << field;
}

}  // namespace
}  // namespace attnd::e2e
