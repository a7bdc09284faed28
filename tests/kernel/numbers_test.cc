// Numbers at the edge: NaN and infinity stay where they belong, large logits and biases come out right.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "problem.h"

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

TEST(Numbers, ScaleOfZeroAndBelow) {
  for (const float scale : {0.0f, -1.0f}) {
    ProblemSpec spec = Spec(100);
    spec.scale = scale;
    ExpectKernelsAgree(spec);
  }
}

}  // namespace
}  // namespace attnd::kernel
