// Attention calls for tests, their model, and what the formula says of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnd/v1/attention.pb.h"
#include "bias/bias_table.h"
#include "model/registry.h"
#include "server/attention/engine.h"
#include "server/wire/codec.h"

namespace attnd::server {

// The model that AddTestModel adds: a causal "decoder" and a bidirectional "encoder" table.
inline constexpr char kModel[] = "test";
inline constexpr std::int64_t kHeads = 2;
bias::BiasTable TestTable(bool bidirectional, float factor = 1);
void AddTestModel(model::Registry& registry);

struct CallSizes {
  std::int64_t batch = 1;
  std::int64_t queries = 5;
  std::int64_t keys = 7;
  std::int64_t head_dim = 4;
  std::int64_t value_head_dim = 4;
  std::int64_t heads = kHeads;
  std::int64_t kv_heads = kHeads;
};

// Large enough that it is computed on a thread of the scheduler, through a HeldKernel.
inline constexpr CallSizes kLarge = {.queries = 192, .keys = 192, .head_dim = 32, .value_head_dim = 32};

// More tiles than a slow HeldKernel computes while a test waits.
inline constexpr CallSizes kEndless = {.batch = 16, .queries = 4096, .keys = 2048, .head_dim = 8, .value_head_dim = 8};

// A call to kModel with FP32 tensors. Not copyable: the tensors of Tensors() are views of it.
struct TestCall {
  explicit TestCall(const CallSizes& sizes = {}, unsigned seed = 1);
  TestCall(TestCall&&) = delete;

  v1::ComputeAttentionRequest header;  // without its tensors
  std::string q, k, v;

  // Cut into several segments.
  RequestTensors Tensors() const;
  v1::ComputeAttentionRequest Message() const;
  v1::StreamAttentionRequest Piece(std::uint64_t id) const;

  // What it takes: the tensors, the key bits, the results, and what its work takes.
  std::int64_t AdmittedBytes() const;
  // Of that, what its work takes, which goes back once the result is there.
  std::int64_t WorkBytes() const;
};

// Expects FP32 `output` and `log_sum_exp` (empty: not asked for) to be the formula's, with `table` (unless the call is
// without bias), up to the rounding
// of FP32 arithmetic. For calls in the default layout.
void ExpectIsTheFormula(const TestCall& call, const bias::BiasTable& table, std::string_view output,
                        std::string_view log_sum_exp);

// The bytes that the engine's calls hold now.
std::int64_t InflightBytes(AttentionEngine& engine);

// Waits until the engine's calls hold nothing, and says what they hold after kPatience.
std::int64_t AwaitNothingInflight(AttentionEngine& engine);

}  // namespace attnd::server
