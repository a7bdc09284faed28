// Messages of sessions for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "attnd/v1/session.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace attnd::server {

// A layer without a bias, so that its session needs no model.
inline v1::SessionLayer PlainLayer(v1::SessionLayerKind kind, std::int64_t heads = 2, std::int64_t head_dim = 8) {
  v1::SessionLayer layer;
  layer.set_kind(kind);
  layer.set_heads(heads);
  layer.set_head_dim(head_dim);
  if (kind == v1::SESSION_LAYER_KIND_SELF) layer.set_bias(v1::BIAS_NONE);
  return layer;
}

// One self layer, and one cross layer if there are sources.
inline v1::SessionOpen PlainOpen(std::int64_t rows = 1, std::int64_t sources = 0, std::int64_t max_tokens = 100) {
  v1::SessionOpen open;
  open.set_rows(rows);
  open.set_dtype(v1::DTYPE_FP32);
  open.set_max_tokens(max_tokens);
  *open.add_layers() = PlainLayer(v1::SESSION_LAYER_KIND_SELF);
  if (sources > 0) {
    open.set_sources(sources);
    open.set_max_source_tokens(max_tokens);
    *open.add_layers() = PlainLayer(v1::SESSION_LAYER_KIND_CROSS);
  }
  return open;
}

// FP32 values: ones, so that any attention over them is finite.
inline std::string Ones(std::int64_t count) {
  const float one = 1;
  std::string bytes;
  for (std::int64_t i = 0; i < count; ++i) bytes.append(reinterpret_cast<const char*>(&one), sizeof(one));
  return bytes;
}

// A step of `layer` that appends `tokens` to each row or source and asks `queries` of each row.
inline v1::SessionRequest PlainStep(const v1::SessionOpen& open, std::uint64_t number, std::int64_t tokens,
                                    std::int64_t queries, int layer = 0) {
  v1::SessionRequest request;
  v1::SessionStep& step = *request.mutable_step();
  step.set_step(number);
  step.set_layer(layer);
  step.set_dtype(v1::DTYPE_FP32);
  step.set_key_length(tokens);
  step.set_query_length(queries);
  const v1::SessionLayer& of = open.layers(layer);
  const std::int64_t kept = of.kind() == v1::SESSION_LAYER_KIND_SELF ? open.rows() : open.sources();
  const std::int64_t kv_heads = of.kv_heads() == 0 ? of.heads() : of.kv_heads();
  const std::int64_t value_dim = of.value_head_dim() == 0 ? of.head_dim() : of.value_head_dim();
  request.set_q(Ones(open.rows() * of.heads() * queries * of.head_dim()));
  request.set_k(Ones(kept * kv_heads * tokens * of.head_dim()));
  request.set_v(Ones(kept * kv_heads * tokens * value_dim));
  return request;
}

inline v1::SessionRequest OpeningOf(const v1::SessionOpen& open) {
  v1::SessionRequest request;
  *request.mutable_open() = open;
  return request;
}

inline v1::SessionRequest ResumptionOf(const std::string& token) {
  v1::SessionRequest request;
  request.mutable_resume()->set_token(token);
  return request;
}

inline v1::SessionRequest CancellationOf(std::uint64_t step) {
  v1::SessionRequest request;
  request.mutable_cancel()->set_step(step);
  return request;
}

inline grpc::ByteBuffer BytesOf(const v1::SessionRequest& request) {
  const grpc::Slice slice(request.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace attnd::server
