// Random attention problems for tests: one struct says what is asked, another owns the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernel/attention.h"
#include "kernel/registry.h"

namespace attnd::kernel {

enum class BiasKind { kNone, kCausal, kBidirectional, kSlopes, kExplicit };

struct ProblemSpec {
  std::int64_t batch = 1;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t queries = 1;
  std::int64_t keys = 1;
  std::int64_t head_dim = 64;
  std::int64_t value_head_dim = 64;
  tensor::DType dtype = tensor::DType::kF32;
  tensor::DType out_dtype = tensor::DType::kF32;
  bool rows_before_heads = false;  // [batch, rows, heads, dim] in memory, not [batch, heads, rows, dim]
  std::int64_t segment_bytes = 0;  // cut inputs into pieces of about so many bytes; 0: one piece
  std::int64_t misalignment = 0;   // bytes that inputs and output stand off an aligned address
  Mask mask = Mask::kCausal;
  float scale = 0.3f;
  std::int64_t query_offset = 0;
  std::vector<std::int64_t> query_lengths = {};
  std::vector<std::int64_t> key_lengths = {};
  BiasKind bias = BiasKind::kCausal;
  std::int64_t bias_span = 113;  // offsets with values of their own, on one side
  float bias_size = 3;
  float input_size = 1;  // standard deviation of queries, keys and values
  bool log_sum_exp = true;
  ProductPrecision precision = ProductPrecision::kF32;
  std::uint32_t seed = 1;
  std::vector<std::int64_t> query_offsets = {};
  std::vector<std::int64_t> key_starts = {};
  std::vector<bool> key_bits = {};  // [batch * keys]; empty: none given
  std::int64_t left = kAnyDistance;
  std::int64_t right = kAnyDistance;
  std::vector<std::int64_t> prefix_lengths = {};
  bool key_bias = false;

  std::string Name() const;
};

// Bytes cut into segments that lie apart in memory.
class SegmentedTensor {
 public:
  SegmentedTensor() = default;
  // `elements` values, rounded to `dtype`.
  SegmentedTensor(const std::vector<float>& elements, tensor::DType dtype, std::int64_t segment_bytes,
                  std::int64_t misalignment);

  TensorView View(std::int64_t batch_stride, std::int64_t head_stride, std::int64_t row_stride) const;

 private:
  std::vector<std::vector<std::byte>> pieces_;
  std::vector<Segment> segments_;
  tensor::DType dtype_ = tensor::DType::kF32;
};

// A problem and all its memory. Not copyable: `attention` points into it.
class Problem {
 public:
  explicit Problem(const ProblemSpec& spec);
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  const ProblemSpec& spec() const { return spec_; }
  const Attention& attention() const { return attention_; }
  BiasView& bias() { return bias_view_; }

  // The values in logical order, before rounding to the dtype; call Rebuild after a change.
  std::vector<float> q, k, v;
  void Rebuild();

  // Memory of the output and log-sum-exp as the last run left it; outputs in logical order.
  std::vector<float> Output() const;
  const std::vector<float>& log_sum_exp() const { return log_sum_exp_; }
  const std::vector<std::byte>& output_bytes() const { return output_; }
  // Fills both with bytes that no result has, so that what is not written shows.
  void Spoil();

 private:
  struct Strides {
    std::int64_t batch, head, row;
  };
  Strides StridesOf(std::int64_t heads, std::int64_t rows, std::int64_t dim) const;
  SegmentedTensor Store(const std::vector<float>& values, std::int64_t heads, std::int64_t rows,
                        std::int64_t dim) const;
  void MakeBias(std::mt19937& random);
  void PackKeyBits();

  const ProblemSpec spec_;
  Attention attention_{};
  BiasView bias_view_{};
  SegmentedTensor stored_q_, stored_k_, stored_v_;
  std::vector<std::byte> key_bits_;
  std::vector<float> key_bias_;
  std::vector<float> bias_values_, constant_, low_value_, high_slope_, low_slope_;
  std::vector<std::byte> output_;
  std::vector<float> log_sum_exp_;
};

// Every kernel that this CPU can run, and the one for AMX with AMX's instructions emulated where it can run the rest.
const std::vector<const Kernel*>& TestedKernels();

// Runs a problem through the scheduler; expects that it ends well.
void RunAttention(const Attention& attention, const Kernel& kernel, int threads = 1);

// The formula's results for a problem and how far fp32 arithmetic may be from them.
struct Expected {
  std::vector<double> output;
  std::vector<double> output_tolerance;
  std::vector<double> log_sum_exp;
  std::vector<double> log_sum_exp_tolerance;
};
Expected Expect(const Problem& problem);

// Spoils the output, runs every tested kernel (or `only`) and compares.
void ExpectKernelsAgree(Problem& problem, const Expected& expected, const Kernel* only = nullptr, int threads = 1);
void ExpectKernelsAgree(const ProblemSpec& spec);

// Spoils and runs both with every tested kernel; outputs and log-sum-exps must be the same to the bit.
void ExpectSameBits(Problem& problem, Problem& expected);
// Likewise, of a problem on one thread and on three.
void ExpectBitsDoNotDependOnThreads(Problem& problem);

// One problem for each way of cutting (direct, direct in splits, local, local in splits, shared), for every mask and
// product.
std::vector<ProblemSpec> EveryWay();

}  // namespace attnd::kernel
