// Every kernel against the reference, over sizes around every tile edge and every feature.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "problem.h"

namespace attnd::kernel {
namespace {

using tensor::DType;

constexpr BiasKind kBiases[] = {BiasKind::kNone, BiasKind::kCausal, BiasKind::kBidirectional, BiasKind::kSlopes,
                                BiasKind::kExplicit};

TEST(Shapes, SelfAttentionOfEveryLengthAroundTileEdges) {
  for (const std::int64_t n :
       {1,  2,  3,  4,  5,  6,  7,  8,   9,   10,  15,  16,  17,  23,  24,  25,  31,  32,  33,  47,  48, 49,
        50, 63, 64, 65, 95, 96, 97, 127, 128, 129, 143, 144, 145, 191, 192, 193, 240, 241, 383, 385, 430}) {
    for (const Mask mask : {Mask::kCausal, Mask::kNone}) {
      ProblemSpec spec{.queries = n, .keys = n, .head_dim = 16, .value_head_dim = 16, .mask = mask};
      spec.bias = mask == Mask::kCausal ? BiasKind::kCausal : BiasKind::kBidirectional;
      spec.seed = static_cast<std::uint32_t>(n);
      ExpectKernelsAgree(spec);
    }
  }
}

TEST(Shapes, QueriesAndKeysOfDifferentLengths) {
  for (const std::int64_t queries : {1, 2, 7, 8, 9, 49, 100}) {
    for (const std::int64_t keys : {1, 15, 49, 193, 500}) {
      for (const std::int64_t offset : {keys - queries, std::int64_t{0}, std::int64_t{-5}, keys + 40}) {
        ExpectKernelsAgree({.queries = queries,
                            .keys = keys,
                            .head_dim = 8,
                            .value_head_dim = 24,
                            .query_offset = offset,
                            .bias_span = 60,
                            .seed = static_cast<std::uint32_t>(queries * 1000 + keys)});
      }
    }
  }
}

TEST(Shapes, EveryHeadAndValueDimension) {
  for (const std::int64_t dim :
       {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 80, 96, 100, 127, 128, 129, 200, 256, 511, 1024}) {
    ExpectKernelsAgree({.queries = 19, .keys = 70, .head_dim = dim, .value_head_dim = 5, .query_offset = 51});
    ExpectKernelsAgree({.queries = 19, .keys = 70, .head_dim = 5, .value_head_dim = dim, .query_offset = 51});
    ExpectKernelsAgree({.queries = 2, .keys = 70, .head_dim = dim, .value_head_dim = dim, .query_offset = 68});
  }
}

TEST(Shapes, EveryBias) {
  for (const BiasKind bias : kBiases) {
    for (const Mask mask : {Mask::kCausal, Mask::kNone}) {
      for (const std::int64_t span : {1, 3, 113, 700}) {
        for (const std::int64_t queries : {3, 230}) {
          ExpectKernelsAgree({.heads = 2,
                              .kv_heads = 2,
                              .queries = queries,
                              .keys = 430,
                              .head_dim = 8,
                              .value_head_dim = 8,
                              .mask = mask,
                              .query_offset = 200,
                              .bias = bias,
                              .bias_span = span});
        }
      }
    }
  }
}

TEST(Shapes, GroupedHeadsInBothLayouts) {
  for (const bool rows_before_heads : {false, true}) {
    for (const std::int64_t kv_heads : {1, 2, 3, 6}) {
      for (const std::int64_t queries : {1, 2, 60}) {
        ExpectKernelsAgree({.batch = 2,
                            .heads = 6,
                            .kv_heads = kv_heads,
                            .queries = queries,
                            .keys = 100,
                            .head_dim = 16,
                            .value_head_dim = 20,
                            .rows_before_heads = rows_before_heads,
                            .query_offset = 100 - queries});
      }
    }
  }
}

TEST(Shapes, RaggedBatches) {
  for (const Mask mask : {Mask::kCausal, Mask::kNone}) {
    for (const std::int64_t heads : {1, 3}) {
      ProblemSpec spec{.batch = 6, .heads = heads, .kv_heads = 1, .queries = 130, .keys = 130, .mask = mask};
      spec.head_dim = spec.value_head_dim = 16;
      spec.query_lengths = {130, 0, 1, 64, 130, 7};
      spec.key_lengths = {130, 130, 0, 64, 5, 100};
      ExpectKernelsAgree(spec);
      spec.query_lengths.clear();
      ExpectKernelsAgree(spec);
    }
  }
}

TEST(Shapes, EveryDtypeInPiecesThatSplitElements) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType out_dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const std::int64_t segment_bytes : {0, 1, 7, 333}) {
        for (const std::int64_t queries : {2, 61}) {
          ExpectKernelsAgree({.heads = 2,
                              .kv_heads = 2,
                              .queries = queries,
                              .keys = 61,
                              .head_dim = 32,
                              .value_head_dim = 33,
                              .dtype = dtype,
                              .out_dtype = out_dtype,
                              .rows_before_heads = segment_bytes == 7,
                              .segment_bytes = segment_bytes,
                              .misalignment = segment_bytes % 4,
                              .query_offset = 61 - queries});
        }
      }
    }
  }
}

// Kernels that multiply bf16 do; the others widen. Head dimensions and key counts are odd and even: both pair up.
TEST(Shapes, ProductsOfBf16) {
  for (const std::int64_t n : {1, 2, 9, 16, 23, 24, 25, 47, 48, 49, 95, 96, 97, 383, 384, 385, 400}) {
    for (const std::int64_t dim : {1, 2, 31, 32, 33, 64, 80}) {
      ExpectKernelsAgree({.heads = 2,
                          .kv_heads = 2,
                          .queries = n,
                          .keys = n,
                          .head_dim = dim,
                          .value_head_dim = 97 - dim,
                          .dtype = DType::kBF16,
                          .out_dtype = dim % 2 == 0 ? DType::kBF16 : DType::kF32,
                          .segment_bytes = dim == 33 ? 77 : 0,
                          .misalignment = dim % 3,
                          .precision = ProductPrecision::kBF16});
    }
  }
  // Rows whose last visible keys lie on both sides of a step.
  for (const std::int64_t offset : {5, 27, 275, 283}) {
    ExpectKernelsAgree({.queries = 60,
                        .keys = 60 + offset,
                        .dtype = DType::kBF16,
                        .query_offset = offset,
                        .precision = ProductPrecision::kBF16});
  }
  ExpectKernelsAgree(
      {.queries = 60, .keys = 3001, .dtype = DType::kBF16, .query_offset = 2941, .precision = ProductPrecision::kBF16});
}

// Memory from the system, every bit of it set: NaN to whoever reads what was never written.
class UnwrittenMemory {
 public:
  explicit UnwrittenMemory(std::size_t bytes)
      : block_(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), std::free) {
    std::memset(block_.get(), 0xff, (bytes + 63) / 64 * 64);
  }
  std::byte* get() { return block_.get(); }

 private:
  std::unique_ptr<std::byte, decltype(&std::free)> block_;
};

TEST(Shapes, NothingIsReadThatWasNotWritten) {
  for (const std::int64_t n : {1, 15, 33, 97, 385, 399}) {
    for (const std::int64_t dim : {1, 24, 31, 80}) {
      for (const auto precision : {ProductPrecision::kF32, ProductPrecision::kBF16}) {
        Problem problem({.queries = n,
                         .keys = n,
                         .head_dim = dim,
                         .value_head_dim = dim + 1,
                         .dtype = DType::kBF16,
                         .precision = precision});
        const Attention& a = problem.attention();
        const Expected expected = Expect(problem);
        for (const Kernel* kernel : TestedKernels()) {
          UnwrittenMemory keys(kernel->packed_key_bytes(a, n));
          UnwrittenMemory values(kernel->packed_value_bytes(a, n));
          const PackedHead packed{keys.get(), values.get(), 0, n};
          UnwrittenMemory scratch(kernel->scratch_bytes(a));
          kernel->pack_keys(a, 0, 0, 0, n, packed, scratch.get());
          kernel->pack_values(a, 0, 0, 0, n, values.get(), scratch.get());
          problem.Spoil();
          kernel::Ahead nothing{};
          for (std::int64_t row = 0; row < n; row += kernel->query_tile) {
            const RowTile tile{0, 0, row, std::min(kernel->query_tile, n - row)};
            UnwrittenMemory state(kernel->state_bytes(a));
            UnwrittenMemory work(kernel->scratch_bytes(a));
            kernel->begin(a, tile, state.get(), work.get());
            kernel->advance(a, tile, packed, 0, n, nothing, state.get(), work.get());
            kernel->finish(a, tile, state.get());
          }
          const std::vector<float> out = problem.Output();
          for (std::size_t i = 0; i < out.size(); ++i) {
            ASSERT_NEAR(out[i], expected.output[i], expected.output_tolerance[i])
                << kernel->name << ", " << problem.spec().Name() << " at " << i;
          }
        }
      }
    }
  }
}

// Large enough for every way of cutting: shared packing, local blocks, direct and local splits.
TEST(Shapes, LongProblems) {
  ExpectKernelsAgree({.queries = 1, .keys = 5000, .head_dim = 64, .query_offset = 4999});
  ExpectKernelsAgree({.heads = 4, .queries = 2, .keys = 3000, .head_dim = 40, .query_offset = 2998});
  ExpectKernelsAgree({.queries = 12, .keys = 4500, .query_offset = 4488});
  ExpectKernelsAgree({.queries = 50, .keys = 3000, .mask = Mask::kNone, .bias = BiasKind::kBidirectional});
  ExpectKernelsAgree({.queries = 1100, .keys = 1100, .head_dim = 32, .value_head_dim = 32});
}

// Whatever else the tables above leave out: features at random.
TEST(Shapes, RandomProblems) {
  std::mt19937 random(20240607);
  const auto below = [&random](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<unsigned>(n));
  };
  for (int i = 0; i < 200; ++i) {
    ProblemSpec spec;
    spec.batch = 1 + below(3);
    spec.kv_heads = 1 + below(3);
    spec.heads = spec.kv_heads * (1 + below(3));
    spec.queries = 1 + below(below(2) == 0 ? 10 : 150);
    spec.keys = 1 + below(300);
    spec.head_dim = 1 + below(70);
    spec.value_head_dim = 1 + below(140);
    spec.dtype = static_cast<DType>(below(3));
    spec.out_dtype = static_cast<DType>(below(3));
    spec.rows_before_heads = below(2) == 0;
    spec.segment_bytes = below(2) == 0 ? 0 : 50 + below(900);
    spec.misalignment = below(4);
    spec.mask = static_cast<Mask>(below(2));
    spec.query_offset = below(400) - 100;
    spec.bias = kBiases[below(5)];
    spec.bias_span = 1 + below(200);
    spec.log_sum_exp = below(2) == 0;
    if (below(2) == 0) {
      for (std::int64_t b = 0; b < spec.batch; ++b) spec.query_lengths.push_back(below(spec.queries + 1));
    }
    if (below(2) == 0) {
      for (std::int64_t b = 0; b < spec.batch; ++b) spec.key_lengths.push_back(below(spec.keys + 1));
    }
    if (below(2) == 0) {
      for (std::int64_t b = 0; b < spec.batch; ++b) spec.query_offsets.push_back(below(400) - 100);
    }
    if (below(2) == 0) {
      for (std::int64_t b = 0; b < spec.batch; ++b) spec.key_starts.push_back(below(spec.keys + 1));
    }
    if (below(2) == 0) {
      const std::int64_t hidden = below(10);
      for (std::int64_t j = 0; j < spec.batch * spec.keys; ++j) spec.key_bits.push_back(below(10) >= hidden);
    }
    spec.precision = static_cast<ProductPrecision>(below(2));
    spec.seed = static_cast<std::uint32_t>(i);
    ExpectKernelsAgree(spec);
  }
}

}  // namespace
}  // namespace attnd::kernel
