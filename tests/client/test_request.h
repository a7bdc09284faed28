// A valid request with memory of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "attnd/attention.h"

namespace attnd::client {

struct Sizes {
  std::int64_t batch = 2, heads = 4, kv_heads = 2, query_length = 3, key_length = 5, head_dim = 8, value_head_dim = 6;
};

struct TestRequest {
  explicit TestRequest(const Sizes& s = {})
      : q(Values(s.batch * s.heads * s.query_length * s.head_dim, 1)),
        k(Values(s.batch * s.kv_heads * s.key_length * s.head_dim, 2)),
        v(Values(s.batch * s.kv_heads * s.key_length * s.value_head_dim, 3)),
        output_values(static_cast<std::size_t>(s.batch * s.heads * s.query_length * s.value_head_dim)) {
    request.model = "book";
    request.q = {q.data(), DType::kFp32, {s.batch, s.heads, s.query_length, s.head_dim}};
    request.k = {k.data(), DType::kFp32, {s.batch, s.kv_heads, s.key_length, s.head_dim}};
    request.v = {v.data(), DType::kFp32, {s.batch, s.kv_heads, s.key_length, s.value_head_dim}};
  }
  TestRequest(const TestRequest&) = delete;

  std::vector<float> q, k, v;
  std::size_t output_values;
  ComputeRequest request;

 private:
  // Between -1 and 1, the same for a seed.
  static std::vector<float> Values(std::int64_t count, std::uint32_t seed) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) {
      seed = seed * 1664525U + 1013904223U;
      value = static_cast<float>(seed >> 8) / static_cast<float>(1 << 23) - 1.0F;
    }
    return values;
  }
};

// Large enough that its tensors are lent to gRPC and not copied, and that they cross many reads of a socket; one head,
// so that it travels as one message.
inline Sizes Large() { return {1, 1, 1, 256, 256, 256, 256}; }

}  // namespace attnd::client
