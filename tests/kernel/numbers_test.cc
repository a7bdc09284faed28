// Numbers at the edge: NaN and infinity stay where they belong, large logits and biases come out right.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "problem.h"
#include "tensor/half.h"

namespace attnd::kernel {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Query counts for tiles and for the direct path.
constexpr std::int64_t kQueries[] = {2, 100};

ProblemSpec Spec(std::int64_t queries) {
  return {.heads = 2,
          .kv_heads = 2,
          .queries = queries,
          .keys = 200,
          .head_dim = 16,
          .value_head_dim = 20,
          .query_offset = 200 - queries};
}

float& At(std::vector<float>& values, const Problem& p, std::int64_t head, std::int64_t rows, std::int64_t row,
          std::int64_t dim, std::int64_t d) {
  static_cast<void>(p);
  return values[static_cast<std::size_t>((head * rows + row) * dim + d)];
}

void ExpectAgreement(Problem& problem) {
  problem.Rebuild();
  ExpectKernelsAgree(problem, Expect(problem));
}

TEST(Numbers, NanInAQueryStaysInItsRow) {
  for (const std::int64_t queries : kQueries) {
    Problem problem(Spec(queries));
    At(problem.q, problem, 1, queries, queries / 2, 16, 3) = kNan;
    problem.Rebuild();
    for (const Kernel* kernel : TestedKernels()) {
      problem.Spoil();
      RunAttention(problem.attention(), *kernel);
      const std::vector<float> out = problem.Output();
      for (std::size_t i = 0; i < out.size(); ++i) {
        const bool spoiled = static_cast<std::int64_t>(i) / 20 == queries + queries / 2;
        ASSERT_EQ(std::isnan(out[i]), spoiled) << NameOf(*kernel) << " at " << i;
      }
    }
    ExpectAgreement(problem);
  }
}

TEST(Numbers, NonFiniteKeysAndValuesReachOnlyRowsThatSeeThem) {
  for (const std::int64_t queries : kQueries) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (const std::int64_t key : {199l, 200 - queries / 2, 150l, 48l}) {
        for (const tensor::DType dtype : {tensor::DType::kF32, tensor::DType::kBF16}) {
          ProblemSpec spec = Spec(queries);
          spec.dtype = dtype;
          spec.precision = ProductPrecision::kBF16;
          Problem keys(spec);
          At(keys.k, keys, 0, 200, key, 16, 15) = bad;
          ExpectAgreement(keys);
          for (const std::int64_t value_dim : {20, 32}) {  // packed, and read in place
            spec.value_head_dim = value_dim;
            Problem values(spec);
            At(values.v, values, 1, 200, key, value_dim, 19) = bad;
            ExpectAgreement(values);
          }
        }
      }
    }
  }
}

// A signalling bit pattern with a payload, whose low bits the exponential's shift would move into the exponent.
TEST(Numbers, NanWithPayload) {
  Problem problem(Spec(100));
  const std::uint32_t bits = 0x7fc00001;
  std::memcpy(&At(problem.k, problem, 0, 200, 100, 16, 0), &bits, 4);
  ExpectAgreement(problem);
}

TEST(Numbers, RowsOfMinusInfinity) {
  for (const std::int64_t queries : kQueries) {
    Problem problem(Spec(queries));
    // Every logit of row 0 is -inf: a query of -inf in one place against keys that are positive there.
    At(problem.q, problem, 0, queries, 0, 16, 0) = -kInf;
    for (std::int64_t j = 0; j < 200; ++j) {
      float& key = At(problem.k, problem, 0, 200, j, 16, 0);
      key = std::abs(key) + 0.1f;
    }
    ExpectAgreement(problem);
    // Only the first keys' are -inf, so a row's first tiles weigh nothing.
    Problem late(Spec(queries));
    for (std::int64_t i = 0; i < queries; ++i) At(late.q, late, 0, queries, i, 16, 0) = 1;
    for (std::int64_t j = 0; j < 190; ++j) At(late.k, late, 0, 200, j, 16, 0) = -kInf;
    ExpectAgreement(late);
  }
}

TEST(Numbers, LogitsOfHundreds) {
  for (const std::int64_t queries : kQueries) {
    ProblemSpec spec = Spec(queries);
    spec.scale = 25;
    ExpectKernelsAgree(spec);
    // Growing along the keys: every tile raises every row's maximum. Falling: none but the first does.
    for (const float slope : {3.0f, -3.0f}) {
      Problem problem(spec);
      for (std::int64_t j = 0; j < 200; ++j) {
        At(problem.k, problem, 0, 200, j, 16, 0) = slope * static_cast<float>(j - 100) / 25;
      }
      for (std::int64_t i = 0; i < queries; ++i) At(problem.q, problem, 0, queries, i, 16, 0) = 1;
      ExpectAgreement(problem);
    }
  }
}

TEST(Numbers, BiasesOfFifty) {
  for (const BiasKind bias : {BiasKind::kCausal, BiasKind::kBidirectional, BiasKind::kExplicit}) {
    for (const std::int64_t queries : kQueries) {
      ProblemSpec spec = Spec(queries);
      spec.bias = bias;
      spec.bias_size = 50;
      ExpectKernelsAgree(spec);
    }
  }
}

TEST(Numbers, HalfPrecisionOfEveryMagnitude) {
  for (const tensor::DType dtype : {tensor::DType::kF16, tensor::DType::kBF16}) {
    for (const float size : {1e-6f, 1e-3f, 30.0f, 3e4f}) {
      ProblemSpec spec = Spec(100);
      spec.dtype = spec.out_dtype = dtype;
      spec.input_size = size;
      spec.scale = 1 / (size * size);
      ExpectKernelsAgree(spec);
    }
  }
}

// Attention over one key, so that each output is a value as the kernel read and wrote it: `values`, zero-padded to
// whole heads. Zeros lose their sign.
void ExpectValuesPassThrough(std::vector<float> values, tensor::DType dtype, tensor::DType out_dtype,
                             std::int64_t queries) {
  constexpr std::int64_t kDim = 1021;  // ends with a part of a packet
  const std::int64_t heads = (static_cast<std::int64_t>(values.size()) + kDim - 1) / kDim;
  values.resize(static_cast<std::size_t>(heads * kDim));
  Problem problem({.heads = heads,
                   .kv_heads = heads,
                   .queries = queries,
                   .head_dim = 1,
                   .value_head_dim = kDim,
                   .dtype = dtype,
                   .out_dtype = out_dtype,
                   .mask = Mask::kNone,
                   .bias = BiasKind::kNone});
  problem.v = values;
  problem.Rebuild();
  const auto rounded = [out_dtype](float value) {
    if (out_dtype == tensor::DType::kF32) return value;
    return out_dtype == tensor::DType::kF16 ? tensor::FloatFromHalf(tensor::HalfFromFloat(value))
                                            : tensor::FloatFromBFloat16(tensor::BFloat16FromFloat(value));
  };
  for (const Kernel* kernel : TestedKernels()) {
    problem.Spoil();
    RunAttention(problem.attention(), *kernel);
    const std::vector<float> out = problem.Output();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t head = i / static_cast<std::size_t>(queries * kDim);
      const float expected = rounded(values[head * kDim + i % kDim]);
      if (std::isnan(expected) && std::isnan(out[i])) continue;
      ASSERT_EQ(out[i], expected) << NameOf(*kernel) << " at " << i;
    }
  }
}

// Every kernel's own conversions agree with tensor/half.h. One query is computed directly, nine as a tile.
TEST(Numbers, EveryHalfIsReadAsTensorReadsIt) {
  std::vector<float> f16;
  std::vector<float> bf16;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    f16.push_back(tensor::FloatFromHalf(static_cast<std::uint16_t>(bits)));
    bf16.push_back(tensor::FloatFromBFloat16(static_cast<std::uint16_t>(bits)));
  }
  for (const std::int64_t queries : {1, 9}) {
    ExpectValuesPassThrough(f16, tensor::DType::kF16, tensor::DType::kF32, queries);
    ExpectValuesPassThrough(bf16, tensor::DType::kBF16, tensor::DType::kF32, queries);
  }
}

// Every half, the middle between it and the next and the floats beside that middle; then floats of every magnitude.
TEST(Numbers, HalvesAreWrittenAsTensorWritesThem) {
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = tensor::FloatFromHalf(static_cast<std::uint16_t>(bits));
    const float next = tensor::FloatFromHalf(static_cast<std::uint16_t>(bits + 1));
    const float middle = std::isinf(next) ? std::copysign(65520.0f, value) : (value + next) / 2;
    for (const float at : {value, std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 2 * middle)}) {
      values.push_back(at);
    }
  }
  constexpr std::uint32_t kStep = 8191;  // a prime below 2^13, so that all low bits occur
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += kStep) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  ExpectValuesPassThrough(values, tensor::DType::kF32, tensor::DType::kF16, 1);
  ExpectValuesPassThrough(values, tensor::DType::kF32, tensor::DType::kBF16, 1);
}

TEST(Numbers, ScaleOfZeroAndBelow) {
  for (const float scale : {0.0f, -1.0f}) {
    ProblemSpec spec = Spec(100);
    spec.scale = scale;
    ExpectKernelsAgree(spec);
  }
}

}  // namespace
}  // namespace attnd::kernel
