#include "attention/calls.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "attention/held_kernel.h"
#include "gtest/gtest.h"
#include "kernel/reference.h"
#include "server/attention/validation.h"

namespace attnd::server {
namespace {

std::string RandomFloats(std::int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::string bytes(static_cast<std::size_t>(count) * sizeof(float), '\0');
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(float)) {
    const float value = normal(random);
    std::memcpy(&bytes[i], &value, sizeof(float));
  }
  return bytes;
}

std::vector<float> FloatsOf(std::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

float LargestOf(std::string_view bytes) {
  float largest = 0;
  for (const float value : FloatsOf(bytes)) largest = std::max(largest, std::abs(value));
  return largest;
}

kernel::Segment SegmentOf(std::string_view bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

// In three pieces, cut within elements.
TensorBytes Cut(std::string_view bytes) {
  TensorBytes tensor;
  tensor.size = bytes.size();
  for (const std::size_t size : {bytes.size() / 3 + 1, bytes.size() / 5 + 2, bytes.size()}) {
    const std::string_view piece = bytes.substr(0, size);
    tensor.segments.push_back(SegmentOf(piece));
    bytes.remove_prefix(piece.size());
  }
  return tensor;
}

// A tensor [batch, heads, rows, dim] in one piece.
kernel::TensorView ViewOfTensor(const kernel::Segment& segment, std::int64_t heads, std::int64_t rows,
                                std::int64_t dim) {
  return {&segment, 1, tensor::DType::kF32, heads * rows * dim, rows * dim, dim};
}

}  // namespace

bias::BiasTable TestTable(bool bidirectional, float factor) {
  std::vector<float> values;
  for (int i = 0; i < 32 * kHeads; ++i) values.push_back(std::sin(static_cast<float>(i) * 0.7F) * factor);
  absl::StatusOr<bias::BiasTable> table = bias::BiasTable::Create(kHeads, bias::T5Rule{32, 128, bidirectional, values});
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

void AddTestModel(model::Registry& registry) {
  EXPECT_TRUE(registry.Upload(kModel, "decoder", TestTable(false), false).ok());
  EXPECT_TRUE(registry.Upload(kModel, "encoder", TestTable(true), false).ok());
}

TestCall::TestCall(const CallSizes& sizes, unsigned seed) {
  header.set_model(kModel);
  header.set_batch(sizes.batch);
  header.set_heads(sizes.heads);
  header.set_kv_heads(sizes.kv_heads);
  header.set_query_length(sizes.queries);
  header.set_key_length(sizes.keys);
  header.set_head_dim(sizes.head_dim);
  header.set_value_head_dim(sizes.value_head_dim);
  header.set_dtype(v1::DTYPE_FP32);
  std::mt19937 random(seed);
  q = RandomFloats(sizes.batch * sizes.heads * sizes.queries * sizes.head_dim, random);
  k = RandomFloats(sizes.batch * sizes.kv_heads * sizes.keys * sizes.head_dim, random);
  v = RandomFloats(sizes.batch * sizes.kv_heads * sizes.keys * sizes.value_head_dim, random);
}

RequestTensors TestCall::Tensors() const { return {Cut(q), Cut(k), Cut(v)}; }

v1::ComputeAttentionRequest TestCall::Message() const {
  v1::ComputeAttentionRequest message = header;
  message.set_q(q);
  message.set_k(k);
  message.set_v(v);
  return message;
}

v1::StreamAttentionRequest TestCall::Piece(std::uint64_t id) const {
  v1::StreamAttentionRequest piece;
  piece.set_id(id);
  *piece.mutable_call() = header;
  piece.set_q(q);
  piece.set_k(k);
  piece.set_v(v);
  return piece;
}

std::int64_t TestCall::AdmittedBytes() const {
  const std::int64_t rows = header.batch() * header.heads() * header.query_length();
  const std::int64_t results = rows * header.value_head_dim() * 4 + (header.return_log_sum_exp() ? rows * 4 : 0);
  return static_cast<std::int64_t>(q.size() + 2 * (k.size() + v.size())) + results;
}

void ExpectIsTheFormula(const TestCall& call, const bias::BiasTable& table, std::string_view output,
                        std::string_view log_sum_exp) {
  const v1::ComputeAttentionRequest& header = call.header;
  const kernel::BiasView bias = ViewOf(table.offset_form(), header.first_head());
  const kernel::Segment q = SegmentOf(call.q);
  const kernel::Segment k = SegmentOf(call.k);
  const kernel::Segment v = SegmentOf(call.v);
  kernel::Attention attention{};
  attention.batch = header.batch();
  attention.heads = header.heads();
  attention.kv_heads = header.kv_heads();
  attention.query_length = header.query_length();
  attention.key_length = header.key_length();
  attention.head_dim = header.head_dim();
  attention.value_head_dim = header.value_head_dim();
  attention.q = ViewOfTensor(q, attention.heads, attention.query_length, attention.head_dim);
  attention.k = ViewOfTensor(k, attention.kv_heads, attention.key_length, attention.head_dim);
  attention.v = ViewOfTensor(v, attention.kv_heads, attention.key_length, attention.value_head_dim);
  const bool causal = header.mask() == v1::MASK_UNSPECIFIED ? !table.bidirectional() : header.mask() == v1::MASK_CAUSAL;
  attention.mask = causal ? kernel::Mask::kCausal : kernel::Mask::kNone;
  attention.scale = header.has_scale() ? header.scale() : 1;
  attention.query_offset =
      header.has_query_offset() ? header.query_offset() : header.key_length() - header.query_length();
  attention.query_lengths = header.query_lengths().empty() ? nullptr : header.query_lengths().data();
  attention.key_lengths = header.key_lengths().empty() ? nullptr : header.key_lengths().data();
  attention.bias = &bias;

  const std::int64_t rows = attention.batch * attention.heads * attention.query_length;
  std::vector<double> expected(static_cast<std::size_t>(rows * attention.value_head_dim));
  std::vector<double> expected_log_sum_exp(header.return_log_sum_exp() ? static_cast<std::size_t>(rows) : 0);
  kernel::Reference(attention, expected.data(), expected_log_sum_exp.empty() ? nullptr : expected_log_sum_exp.data());
  const std::vector<float> got = FloatsOf(output);
  const std::vector<float> got_log_sum_exp = FloatsOf(log_sum_exp);
  ASSERT_EQ(got.size(), expected.size());
  ASSERT_EQ(got_log_sum_exp.size(), expected_log_sum_exp.size());

  // A logit is a sum of head_dim products, wrong by at most (head_dim + 2) epsilon times their sizes, and the bias; its
  // error is a relative error of the weight. The sum over the keys adds one epsilon a key, and all is scaled by v.
  const double epsilon = std::numeric_limits<float>::epsilon();
  const double dim = static_cast<double>(attention.head_dim);
  const double logit = std::abs(attention.scale) * dim * LargestOf(call.q) * LargestOf(call.k) + 2;
  const double logit_error = (dim + 4) * epsilon * logit;
  const double weight_error = 2 * logit_error + (static_cast<double>(attention.key_length) + 4) * epsilon;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], weight_error * LargestOf(call.v)) << "output element " << i;
  }
  for (std::size_t i = 0; i < got_log_sum_exp.size(); ++i) {
    if (std::isinf(expected_log_sum_exp[i])) {
      ASSERT_EQ(got_log_sum_exp[i], expected_log_sum_exp[i]) << "row " << i;
    } else {
      ASSERT_NEAR(got_log_sum_exp[i], expected_log_sum_exp[i], weight_error + logit_error) << "row " << i;
    }
  }
}

std::int64_t InflightBytes(AttentionEngine& engine) {
  engine.TakePeakBytes();
  return engine.TakePeakBytes();  // from the first call on, which was a moment ago
}

std::int64_t AwaitNothingInflight(AttentionEngine& engine) {
  const absl::Time deadline = absl::Now() + kPatience;
  std::int64_t bytes = InflightBytes(engine);
  while (bytes != 0 && absl::Now() < deadline) {
    std::this_thread::yield();
    bytes = InflightBytes(engine);
  }
  return bytes;
}

}  // namespace attnd::server
