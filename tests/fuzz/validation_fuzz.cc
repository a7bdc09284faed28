// The validator of attention requests. The input: a byte (its lowest bit: whether the tensors' sizes follow, or are
// what the request's sizes come to), three sizes of eight bytes if so, and a ComputeAttentionRequest.
#include "server/attention/validation.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "attnd/v1/attention.pb.h"
#include "check.h"
#include "input.h"
#include "server/attention/bias.h"
#include "server/rpc/status.h"
#include "tensor/dtype.h"
#include "wire/codec_check.h"

namespace attnd::server {
namespace {

using fuzz::Check;
using Wide = __int128;

constexpr std::int64_t kHeads = 6;

bias::BiasTable Table(bool bidirectional) {
  return *bias::BiasTable::Create(kHeads, bias::T5Rule{4, 6, bidirectional, std::vector<float>(4 * kHeads, 0.5F)});
}

struct World {
  SilentProtobuf silent;
  model::Model model{
      "m", 1, "test", absl::UnixEpoch(), {{{"decoder", Table(false)}, {"encoder", Table(true)}}, "", ""}, "hash"};
  AttentionValidator validator{Limits{}};
};

std::size_t ElementOf(v1::Dtype dtype) { return dtype == v1::DTYPE_FP32 ? 4 : 2; }

// What a tensor's size should be, or something else where that does not fit.
std::size_t SizeOf(std::initializer_list<std::int64_t> dims, v1::Dtype dtype) {
  Wide product = static_cast<Wide>(ElementOf(dtype));
  for (const std::int64_t dim : dims) {
    if (dim <= 0 || product > INT64_MAX / dim) return 0;
    product *= dim;
  }
  return static_cast<std::size_t>(product);
}

// The size is exactly what the last element reaches to.
template <typename View>
void CheckView(const View& view, Wide batch, Wide heads, Wide rows, Wide dim, Wide bytes) {
  const Wide element = static_cast<Wide>(tensor::SizeOf(view.dtype));
  Check(batch * heads * rows * dim * element == bytes, "a tensor has the bytes of its sizes");
  const Wide last =
      (batch - 1) * view.batch_stride + (heads - 1) * view.head_stride + (rows - 1) * view.row_stride + dim;
  Check(view.batch_stride > 0 && view.head_stride > 0 && view.row_stride >= dim, "strides are positive");
  Check(last * element == bytes, "the last row ends where the tensor does");
}

void CheckEach(const std::int64_t* values, std::int64_t count, std::int64_t lowest, std::int64_t highest,
               const char* what) {
  for (std::int64_t i = 0; values != nullptr && i < count; ++i)
    Check(values[i] >= lowest && values[i] <= highest, what);
}

// Where rows have places of their own, each lies in its tensor.
void CheckPlaced(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                 const ValidAttention& valid) {
  const kernel::Attention& a = valid.attention;
  const auto check = [](const auto& view, std::int64_t b, std::int64_t heads, std::int64_t rows, std::int64_t dim,
                        Wide bytes) {
    const Wide element = static_cast<Wide>(tensor::SizeOf(view.dtype));
    Check(rows >= 1, "a sequence has rows");
    const Wide first = kernel::PlaceOf(view, b, 0, 0);
    const Wide last = static_cast<Wide>(kernel::PlaceOf(view, b, heads - 1, rows - 1)) + dim;
    Check(first >= 0 && last * element <= bytes, "its rows lie in the tensor");
  };
  for (std::int64_t b = 0; b < a.batch; ++b) {
    const std::int64_t queries = a.query_lengths == nullptr ? a.query_length : a.query_lengths[b];
    const std::int64_t keys = request.query_segments().empty() ? a.key_length : a.key_lengths[b];
    if (!request.query_segments().empty()) {
      check(a.q, b, a.heads, queries, a.head_dim, static_cast<Wide>(tensors.q.size));
      check(a.out, b, a.heads, queries, a.value_head_dim, valid.output_bytes);
    }
    check(a.k, b, a.kv_heads, keys, a.head_dim, static_cast<Wide>(tensors.k.size));
    check(a.v, b, a.kv_heads, keys, a.value_head_dim, static_cast<Wide>(tensors.v.size));
    if (valid.log_sum_exp_bytes == 0 || a.log_sum_exp_starts == nullptr) continue;
    const Wide last = static_cast<Wide>(a.log_sum_exp_starts[b]) + (a.heads - 1) * a.log_sum_exp_stride + queries;
    Check(a.log_sum_exp_starts[b] >= 0 && last * 4 <= valid.log_sum_exp_bytes, "its log-sum-exp lies in the result");
  }
}

void CheckValid(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, const ValidAttention& valid,
                const Limits& limits) {
  const kernel::Attention& a = valid.attention;
  if (!request.query_segments().empty() || !request.kv_rows().empty()) return CheckPlaced(request, tensors, valid);
  for (const std::int64_t dim : {a.batch, a.heads, a.kv_heads, a.query_length, a.key_length}) {
    Check(dim >= 1 && dim <= limits.max_dim, "sizes are within max_dim");
  }
  for (const std::int64_t dim : {a.head_dim, a.value_head_dim})
    Check(dim >= 1 && dim <= limits.max_head_dim, "within max_head_dim");
  Check(a.heads % a.kv_heads == 0, "heads share key heads evenly");
  CheckView(a.q, a.batch, a.heads, a.query_length, a.head_dim, static_cast<Wide>(tensors.q.size));
  CheckView(a.k, a.batch, a.kv_heads, a.key_length, a.head_dim, static_cast<Wide>(tensors.k.size));
  CheckView(a.v, a.batch, a.kv_heads, a.key_length, a.value_head_dim, static_cast<Wide>(tensors.v.size));
  CheckView(a.out, a.batch, a.heads, a.query_length, a.value_head_dim, valid.output_bytes);
  const Wide rows = static_cast<Wide>(a.batch) * a.heads * a.query_length;
  Check(valid.log_sum_exp_bytes == (request.return_log_sum_exp() ? rows * 4 : 0), "a float for each row, if asked for");
  Check(valid.output_bytes + valid.log_sum_exp_bytes <= limits.max_result_bytes, "results are within max_result_bytes");
  Check(std::isfinite(a.scale), "a scale is finite");
  CheckEach(a.query_lengths, a.batch, 0, a.query_length, "query_lengths lie within the queries");
  CheckEach(a.key_lengths, a.batch, 0, a.key_length, "key_lengths lie within the keys");
  CheckEach(a.key_starts, a.batch, 0, a.key_length, "key_starts lie within the keys");
  Check(a.query_lengths == nullptr || request.query_lengths_size() == a.batch, "a length for each sequence");
  Check(a.key_lengths == nullptr || request.key_lengths_size() == a.batch, "a length for each sequence");
  Check(a.key_starts == nullptr || request.key_starts_size() == a.batch, "a start for each sequence");
  Check(a.query_offsets == nullptr || request.query_offsets_size() == a.batch, "an offset for each sequence");
  // No position may overflow an offset of 32 bits, which kernels count with.
  CheckEach(&a.query_offset, 1, -std::int64_t{INT32_MAX}, INT32_MAX - a.query_length + 1,
            "queries lie at 32-bit positions");
  CheckEach(a.query_offsets, a.batch, -std::int64_t{INT32_MAX}, INT32_MAX - a.query_length + 1,
            "queries lie at 32-bit positions");
  CheckEach(a.prefix_lengths, a.batch, 0, a.key_length, "prefixes lie within the keys");
  Check(a.prefix_lengths == nullptr || request.prefix_lengths_size() == a.batch, "a prefix for each sequence");
  Check(a.prefix_lengths == nullptr || a.mask == kernel::Mask::kCausal, "a prefix of a causal mask");
  for (const std::int64_t distance : {a.left, a.right}) {
    Check(distance >= 0 && (distance <= INT32_MAX || distance == kernel::kAnyDistance),
          "a window's sides are positions");
  }
  if (a.key_bias != nullptr) {
    Check(static_cast<Wide>(request.key_bias_size()) == static_cast<Wide>(a.heads) * a.key_length,
          "a bias for each key");
    for (const float bias : request.key_bias()) Check(std::isfinite(bias), "biases of keys are finite");
  }
  if (a.key_bits != nullptr) {
    Check(static_cast<Wide>(request.key_bits().size()) == static_cast<Wide>(a.batch) * ((a.key_length + 7) / 8),
          "a bit for each key");
  }
  Check(valid.bias.has_value() == (request.bias() != v1::BIAS_NONE), "a bias unless there is to be none");
  if (valid.bias.has_value()) {
    Check(request.first_head() >= 0 && request.first_head() + a.heads <= kHeads, "heads are the table's");
  }
  Check(valid.shared == nullptr, "this server shares no memory");
}

void Run(const World& world, fuzz::Input input) {
  const bool sizes_follow = (input.Take<std::uint8_t>() & 1) != 0;
  RequestTensors tensors;
  for (TensorBytes* tensor : {&tensors.q, &tensors.k, &tensors.v}) {
    if (sizes_follow) tensor->size = input.Take<std::uint64_t>();
  }
  v1::ComputeAttentionRequest request;
  const absl::string_view bytes = input.Rest();
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  if (!sizes_follow) {
    const std::int64_t kv_heads = request.kv_heads() == 0 ? request.heads() : request.kv_heads();
    const std::int64_t value_dim = request.value_head_dim() == 0 ? request.head_dim() : request.value_head_dim();
    tensors.q.size =
        SizeOf({request.batch(), request.heads(), request.query_length(), request.head_dim()}, request.dtype());
    const std::int64_t kv_batch = request.kv_batch() == 0 ? request.batch() : request.kv_batch();
    tensors.k.size = SizeOf({kv_batch, kv_heads, request.key_length(), request.head_dim()}, request.dtype());
    tensors.v.size = SizeOf({kv_batch, kv_heads, request.key_length(), value_dim}, request.dtype());
  }
  if (!CheckBias(request).ok()) return;
  const bool biased = request.bias() != v1::BIAS_NONE;
  const absl::StatusOr<ValidAttention> valid =
      world.validator.Validate(request, tensors, biased ? &world.model : nullptr);
  if (valid.ok()) {
    CheckValid(request, tensors, *valid, world.validator.limits());
    return;
  }
  const auto detail = DetailOf(valid.status());
  Check(detail.has_value() && !detail->field().empty() && !detail->expected().empty(), "a refusal names its field");
  Check(valid.status().message().size() < 2000, "a refusal is short");
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const attnd::server::World& world = *new attnd::server::World;
  attnd::server::Run(world, attnd::fuzz::Input(data, size));
  return 0;
}
