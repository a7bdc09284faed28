// What the engine allocates for a request is what was foretold of it.

#include "server/attention/result_size.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "attention/calls.h"
#include "gtest/gtest.h"
#include "server/attention/validation.h"

namespace attnd::server {
namespace {

constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();

TEST(SentResultBytesTest, IsWhatTheValidatorSays) {
  model::Registry registry{model::RegistryOptions{}};
  AddTestModel(registry);
  const AttentionValidator validator{Limits{}};
  const auto half = [](v1::ComputeAttentionRequest& request) { request.set_output_dtype(v1::DTYPE_FP16); };
  const auto brain = [](v1::ComputeAttentionRequest& request) { request.set_output_dtype(v1::DTYPE_BF16); };
  const auto sums = [](v1::ComputeAttentionRequest& request) { request.set_return_log_sum_exp(true); };
  const auto plain = [](v1::ComputeAttentionRequest&) {};
  using Change = std::function<void(v1::ComputeAttentionRequest&)>;
  for (const CallSizes& sizes :
       {CallSizes{}, CallSizes{.batch = 3, .queries = 7, .value_head_dim = 9}, CallSizes{.heads = 2, .kv_heads = 1}}) {
    for (const Change& change : {Change(plain), Change(half), Change(brain), Change(sums)}) {
      TestCall call(sizes);
      change(call.header);
      const RequestTensors tensors = call.Tensors();
      const absl::StatusOr<ValidAttention> valid =
          validator.Validate(call.header, tensors, registry.Find(kModel)->get());
      ASSERT_TRUE(valid.ok()) << valid.status();
      EXPECT_GT(valid->output_bytes, 0);
      EXPECT_EQ(SentResultBytes(call.header, kAny), valid->output_bytes + valid->log_sum_exp_bytes);
    }
  }
}

TEST(SentResultBytesTest, AbsentDimsAreTheirDefaults) {
  TestCall call({.queries = 3, .head_dim = 8, .value_head_dim = 8});
  call.header.set_value_head_dim(0);
  EXPECT_EQ(SentResultBytes(call.header, kAny), kHeads * 3 * 8 * 4);
}

TEST(SentResultBytesTest, WhatIsInSharedMemoryIsNotSent) {
  TestCall call({.queries = 3, .head_dim = 4, .value_head_dim = 8});
  call.header.set_return_log_sum_exp(true);
  call.header.mutable_output_shared();
  EXPECT_EQ(SentResultBytes(call.header, kAny), kHeads * 3 * 4);
  call.header.mutable_log_sum_exp_shared();
  EXPECT_EQ(SentResultBytes(call.header, kAny), 0);
}

TEST(SentResultBytesTest, WhatIsRefusedTakesNothing) {
  const TestCall call({.queries = 3, .head_dim = 4, .value_head_dim = 8});
  const std::int64_t bytes = kHeads * 3 * 8 * 4;
  EXPECT_EQ(SentResultBytes(call.header, bytes), bytes);
  EXPECT_EQ(SentResultBytes(call.header, bytes - 1), 0);
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{0}, std::numeric_limits<std::int64_t>::max(),
                                 std::numeric_limits<std::int64_t>::min()}) {
    v1::ComputeAttentionRequest request = call.header;
    request.set_query_length(bad);
    EXPECT_EQ(SentResultBytes(request, 1 << 30), 0) << bad;
    request.set_return_log_sum_exp(true);
    EXPECT_EQ(SentResultBytes(request, 1 << 30), 0) << bad;
  }
  v1::ComputeAttentionRequest request = call.header;
  request.set_dtype(v1::DTYPE_UNSPECIFIED);
  EXPECT_EQ(SentResultBytes(request, kAny), 0);
}

}  // namespace
}  // namespace attnd::server
