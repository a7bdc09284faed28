#include "client/src/encode.h"

#include <grpcpp/support/slice.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/src/protobuf_wire.h"

namespace attnd::client {
namespace {

// Tensors of at most this size are copied into the slice with the fields before them.
constexpr std::int64_t kCopyBytes = 2048;

void SetPlace(const SharedPlace& place, v1::SharedTensor& tensor) {
  tensor.set_region(place.region.data(), place.region.size());
  tensor.set_offset(place.offset);
}

// A slice of the caller's memory. `keeper` keeps it alive until gRPC releases the slice, on one of its threads.
grpc::Slice Lend(const void* data, std::size_t size, std::shared_ptr<const void> keeper) {
  using Keeper = std::shared_ptr<const void>;
  return grpc::Slice(
      const_cast<void*>(data), size, [](void* held) { delete static_cast<Keeper*>(held); },
      new Keeper(std::move(keeper)));
}

// Appends the tensors to `copied`, the serialized fields before them. The tensors' field numbers are the same in both
// messages.
grpc::ByteBuffer WithTensors(std::string copied, const ComputeRequest& request, const Shape& shape,
                             const std::shared_ptr<const void>& loan, const WireFields& fields) {
  std::vector<grpc::Slice> slices;
  const auto add = [&](int field, const TensorView& tensor, std::int64_t bytes, bool shared) {
    if (shared) return;
    AppendVarint(BytesTag(field), copied);
    AppendVarint(static_cast<std::uint64_t>(bytes), copied);
    const auto size = static_cast<std::size_t>(bytes);
    if (bytes <= kCopyBytes) {
      copied.append(static_cast<const char*>(tensor.data), size);
      return;
    }
    slices.emplace_back(copied);
    copied.clear();
    slices.push_back(Lend(tensor.data, size, tensor.owner != nullptr ? tensor.owner : loan));
  };
  add(v1::ComputeAttentionRequest::kQFieldNumber, request.q, shape.q_bytes, fields.q.has_value());
  add(v1::ComputeAttentionRequest::kKFieldNumber, request.k, shape.k_bytes, fields.k.has_value());
  add(v1::ComputeAttentionRequest::kVFieldNumber, request.v, shape.v_bytes, fields.v.has_value());
  if (!copied.empty()) slices.emplace_back(copied);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace

v1::ComputeAttentionRequest SmallFields(const ComputeRequest& r, const Shape& shape, const WireFields& fields) {
  v1::ComputeAttentionRequest m;
  m.set_bias(static_cast<v1::Bias>(r.bias));
  m.set_model(r.model);
  m.set_version(r.version);
  m.set_table(r.table);
  m.set_batch(shape.batch);
  m.set_heads(shape.heads);
  m.set_kv_heads(shape.kv_heads);
  m.set_query_length(shape.query_length);
  m.set_key_length(shape.key_length);
  m.set_head_dim(shape.head_dim);
  m.set_value_head_dim(shape.value_head_dim);
  m.set_dtype(static_cast<v1::Dtype>(r.q.dtype));
  m.set_layout(static_cast<v1::Layout>(r.layout));
  m.set_mask(static_cast<v1::Mask>(r.mask));
  if (r.scale.has_value()) m.set_scale(*r.scale);
  if (r.query_offset.has_value()) m.set_query_offset(*r.query_offset);
  m.mutable_query_offsets()->Add(r.query_offsets.begin(), r.query_offsets.end());
  m.mutable_query_lengths()->Add(r.query_lengths.begin(), r.query_lengths.end());
  m.mutable_key_lengths()->Add(r.key_lengths.begin(), r.key_lengths.end());
  m.mutable_key_starts()->Add(r.key_starts.begin(), r.key_starts.end());
  m.set_key_bits(r.key_bits.data(), r.key_bits.size());
  if (r.window_left.has_value()) m.set_window_left(*r.window_left);
  if (r.window_right.has_value()) m.set_window_right(*r.window_right);
  m.mutable_prefix_lengths()->Add(r.prefix_lengths.begin(), r.prefix_lengths.end());
  m.mutable_key_bias()->Add(r.key_bias.begin(), r.key_bias.end());
  m.mutable_query_segments()->Add(r.query_segments.begin(), r.query_segments.end());
  m.mutable_key_segments()->Add(r.key_segments.begin(), r.key_segments.end());
  if (shape.kv_batch != shape.batch) m.set_kv_batch(shape.kv_batch);
  m.mutable_kv_rows()->Add(r.kv_rows.begin(), r.kv_rows.end());
  m.set_output_dtype(static_cast<v1::Dtype>(shape.output_dtype));
  m.set_return_log_sum_exp(r.return_log_sum_exp);
  m.set_product_precision(static_cast<v1::ProductPrecision>(r.product_precision));
  if (r.first_head.has_value()) m.set_first_head(*r.first_head);
  if (fields.q.has_value()) SetPlace(*fields.q, *m.mutable_q_shared());
  if (fields.k.has_value()) SetPlace(*fields.k, *m.mutable_k_shared());
  if (fields.v.has_value()) SetPlace(*fields.v, *m.mutable_v_shared());
  if (fields.output.has_value()) SetPlace(*fields.output, *m.mutable_output_shared());
  if (fields.log_sum_exp.has_value()) SetPlace(*fields.log_sum_exp, *m.mutable_log_sum_exp_shared());
  m.set_table_heads(fields.table_heads);
  return m;
}

grpc::ByteBuffer EncodeRequest(const ComputeRequest& request, const Shape& shape,
                               const std::shared_ptr<const void>& loan, const WireFields& fields) {
  return WithTensors(SmallFields(request, shape, fields).SerializeAsString(), request, shape, loan, fields);
}

grpc::ByteBuffer EncodePiece(std::uint64_t id, bool more, const ComputeRequest& request, const Shape& shape,
                             const std::shared_ptr<const void>& loan, const WireFields& fields) {
  v1::StreamAttentionRequest message;
  message.set_id(id);
  message.set_more(more);
  *message.mutable_call() = SmallFields(request, shape, fields);
  return WithTensors(message.SerializeAsString(), request, shape, loan, fields);
}

}  // namespace attnd::client
