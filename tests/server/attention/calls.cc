#include "attention/calls.h"

#include <cmath>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "attention/held_kernel.h"
#include "gtest/gtest.h"
#include "kernel/registry.h"
#include "reference_check.h"
#include "schedule/attention_work.h"
#include "server/attention/bias.h"
#include "server/attention/validation.h"

namespace attnd::server {
namespace {

kernel::Segment SegmentOf(std::string_view bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

// In three pieces, cut within elements.
TensorBytes Cut(std::string_view bytes) {
  TensorBytes tensor;
  tensor.size = bytes.size();
  for (const std::size_t size : {bytes.size() / 3 + 1, bytes.size() / 5 + 2, bytes.size()}) {
    const std::string_view piece = bytes.substr(0, size);
    tensor.Add(SegmentOf(piece));
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
  q = test::RandomFloats(sizes.batch * sizes.heads * sizes.queries * sizes.head_dim, random);
  k = test::RandomFloats(sizes.batch * sizes.kv_heads * sizes.keys * sizes.head_dim, random);
  v = test::RandomFloats(sizes.batch * sizes.kv_heads * sizes.keys * sizes.value_head_dim, random);
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
  const std::int64_t tensors = static_cast<std::int64_t>(q.size() + k.size() + v.size() + header.key_bits().size()) +
                               header.key_bias_size() * std::int64_t{sizeof(float)};
  return tensors + results + WorkBytes();
}

std::int64_t TestCall::WorkBytes() const {
  const Limits limits;
  v1::ComputeAttentionRequest request = header;
  request.clear_output_shared();
  request.clear_log_sum_exp_shared();
  // Without a model: what the mask would be by its table is said.
  if (request.mask() == v1::MASK_UNSPECIFIED) {
    request.set_mask(header.table() == "encoder" ? v1::MASK_NONE : v1::MASK_CAUSAL);
  }
  const RequestTensors pieces = Tensors();
  const absl::StatusOr<ValidAttention> valid = AttentionValidator(limits).Validate(request, pieces, nullptr);
  EXPECT_TRUE(valid.ok()) << valid.status();
  const schedule::AttentionPlan plan(valid->attention, *kernel::AvailableKernels().front());
  return schedule::AttentionWorkBytes(plan);
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
  const bool without_bias = header.bias() == v1::BIAS_NONE;
  const bool causal_if_unset = !without_bias && !table.bidirectional();
  const bool causal = header.mask() == v1::MASK_UNSPECIFIED ? causal_if_unset : header.mask() == v1::MASK_CAUSAL;
  attention.mask = causal ? kernel::Mask::kCausal : kernel::Mask::kNone;
  attention.scale = header.has_scale() ? header.scale() : 1;
  attention.query_offset =
      header.has_query_offset() ? header.query_offset() : header.key_length() - header.query_length();
  attention.query_lengths = header.query_lengths().empty() ? nullptr : header.query_lengths().data();
  attention.key_lengths = header.key_lengths().empty() ? nullptr : header.key_lengths().data();
  attention.query_offsets = header.query_offsets().empty() ? nullptr : header.query_offsets().data();
  attention.key_starts = header.key_starts().empty() ? nullptr : header.key_starts().data();
  const std::string& bits = header.key_bits();
  attention.key_bits = bits.empty() ? nullptr : SegmentOf(bits).data;
  if (header.has_window_left()) attention.left = header.window_left();
  if (header.has_window_right()) attention.right = header.window_right();
  attention.prefix_lengths = header.prefix_lengths().empty() ? nullptr : header.prefix_lengths().data();
  attention.key_bias = header.key_bias().empty() ? nullptr : header.key_bias().data();
  attention.bias = without_bias ? nullptr : &bias;

  const std::int64_t rows = attention.batch * attention.heads * attention.query_length;
  ASSERT_EQ(log_sum_exp.size(), header.return_log_sum_exp() ? static_cast<std::size_t>(rows) * sizeof(float) : 0);
  test::ExpectIsReference(attention, call.q, call.k, call.v, output, log_sum_exp);
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
