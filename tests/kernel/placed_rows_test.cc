// Batch entries that stand elsewhere: sequences packed into rows, and sequences that share keys and values. Each is, to
// the bit, the ragged batch that it stands for.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "problem.h"

namespace attnd::kernel {
namespace {

using tensor::DType;

// One row of many sequences, and the same as a batch of padded ones.
class Packed {
 public:
  Packed(ProblemSpec spec, const std::vector<std::int64_t>& queries, const std::vector<std::int64_t>& keys)
      : queries_(queries), keys_(keys) {
    spec.batch = static_cast<std::int64_t>(queries.size());
    spec.queries = *std::max_element(queries.begin(), queries.end());
    spec.keys = *std::max_element(keys.begin(), keys.end());
    spec.query_lengths = queries;
    spec.key_lengths = keys;
    for (std::size_t i = 0; i < queries.size(); ++i) spec.query_offsets.push_back(keys[i] - queries[i]);
    ragged_ = std::make_unique<Problem>(spec);
    ProblemSpec one = spec;
    one.batch = 1;
    one.queries = Sum(queries);
    one.keys = Sum(keys);
    one.query_lengths = one.key_lengths = one.query_offsets = {};
    packed_ = std::make_unique<Problem>(one);
    Fill(ragged_->q, queries, spec.heads, spec.queries, spec.head_dim, packed_->q);
    Fill(ragged_->k, keys, spec.kv_heads, spec.keys, spec.head_dim, packed_->k);
    Fill(ragged_->v, keys, spec.kv_heads, spec.keys, spec.value_head_dim, packed_->v);
    packed_->bias() = ragged_->bias();  // spans depend on nothing else, but draws do
    packed_->Rebuild();

    Attention a = packed_->attention();
    a.bias = ragged_->attention().bias;
    std::int64_t query = 0, key = 0;
    for (std::size_t i = 0; i < queries.size(); ++i) {
      q_.push_back(query * a.q.row_stride);
      k_.push_back(key * a.k.row_stride);
      v_.push_back(key * a.v.row_stride);
      out_.push_back(query * a.out.row_stride);
      log_sum_exp_.push_back(query);
      query += queries[i];
      key += keys[i];
    }
    a.q.starts = q_.data();
    a.k.starts = k_.data();
    a.v.starts = v_.data();
    a.out.starts = out_.data();
    a.log_sum_exp_starts = log_sum_exp_.data();
    a.log_sum_exp_stride = a.query_length;
    const Attention& r = ragged_->attention();
    a.batch = r.batch;
    a.query_length = r.query_length;
    a.key_length = r.key_length;
    a.query_lengths = r.query_lengths;
    a.key_lengths = r.key_lengths;
    a.query_offsets = r.query_offsets;
    attention_ = a;
  }

  void ExpectSameBits(const Kernel& kernel, int threads) {
    ragged_->Spoil();
    packed_->Spoil();
    RunAttention(ragged_->attention(), kernel, threads);
    RunAttention(attention_, kernel, threads);
    const ProblemSpec& spec = ragged_->spec();
    const std::vector<float> expected = ragged_->Output(), got = packed_->Output();
    std::vector<float> packed(got.size()), packed_lse(packed_->log_sum_exp().size());
    Fill(expected, queries_, spec.heads, spec.queries, spec.value_head_dim, packed);
    Fill(ragged_->log_sum_exp(), queries_, spec.heads, spec.queries, 1, packed_lse);
    EXPECT_EQ(got, packed) << NameOf(kernel) << " " << spec.Name();
    EXPECT_EQ(packed_->log_sum_exp(), packed_lse) << NameOf(kernel) << " " << spec.Name();
  }

 private:
  static std::int64_t Sum(const std::vector<std::int64_t>& numbers) {
    std::int64_t sum = 0;
    for (const std::int64_t number : numbers) sum += number;
    return sum;
  }

  // From [sequences, heads, longest, dim] to [heads, all rows, dim].
  static void Fill(const std::vector<float>& ragged, const std::vector<std::int64_t>& lengths, std::int64_t heads,
                   std::int64_t longest, std::int64_t dim, std::vector<float>& packed) {
    const std::int64_t all = Sum(lengths);
    std::int64_t first = 0;
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto from = ragged.begin() + (static_cast<std::int64_t>(b) * heads + h) * longest * dim;
        std::copy_n(from, lengths[b] * dim, packed.begin() + (h * all + first) * dim);
      }
      first += lengths[b];
    }
  }

  const std::vector<std::int64_t> queries_, keys_;
  std::unique_ptr<Problem> ragged_, packed_;
  std::vector<std::int64_t> q_, k_, v_, out_, log_sum_exp_;
  Attention attention_{};
};

// Direct, local and shared units, in every dtype and layout.
TEST(PlacedRows, PackedSequencesAreARaggedBatch) {
  const std::vector<std::int64_t> kLengths[] = {{1, 7, 300, 2, 90, 33}, {5, 1, 1, 8}, {700, 3, 650}};
  for (const std::vector<std::int64_t>& lengths : kLengths) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const bool rows_before_heads : {false, true}) {
        for (const Mask mask : {Mask::kCausal, Mask::kNone}) {
          ProblemSpec spec{.heads = 4, .kv_heads = 2, .head_dim = 24, .value_head_dim = 40, .dtype = dtype};
          spec.rows_before_heads = rows_before_heads;
          spec.mask = mask;
          spec.bias = mask == Mask::kCausal ? BiasKind::kCausal : BiasKind::kBidirectional;
          spec.precision = ProductPrecision::kBF16;
          Packed packed(spec, lengths, lengths);
          for (const Kernel* kernel : TestedKernels()) packed.ExpectSameBits(*kernel, 1);
        }
      }
    }
  }
}

TEST(PlacedRows, QueriesAndKeysOfDifferentLengthsInAWindowOnThreads) {
  ProblemSpec spec{.heads = 2, .kv_heads = 2, .head_dim = 16, .value_head_dim = 16};
  spec.left = 50;
  spec.segment_bytes = 1000;
  Packed packed(spec, {1, 40, 2, 120, 9}, {90, 41, 300, 120, 1});
  for (const Kernel* kernel : TestedKernels()) {
    for (const int threads : {1, 3}) packed.ExpectSameBits(*kernel, threads);
  }
}

// Keys that several sequences read are those that each would read alone.
TEST(PlacedRows, SequencesThatShareKeysAreThoseThatHaveThemAlone) {
  const std::vector<std::int64_t> rows = {1, 0, 0, 1, 1};
  for (const std::int64_t queries : {1, 4, 60, 400}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ProblemSpec spec{.batch = 5, .heads = 4, .kv_heads = 2, .queries = queries, .keys = 500, .dtype = dtype};
      spec.head_dim = spec.value_head_dim = 32;
      spec.query_offset = 500 - queries;
      spec.precision = ProductPrecision::kBF16;
      spec.query_offsets = {90, 499 - queries, 480 - queries, 3, 0};
      spec.key_lengths = {500, 499, 480, 200, 100};
      Problem alone(spec);
      const std::int64_t k_size = spec.kv_heads * spec.keys * spec.head_dim;
      const std::vector<float> k = alone.k, v = alone.v;
      for (std::size_t b = 0; b < rows.size(); ++b) {
        const std::int64_t to = static_cast<std::int64_t>(b) * k_size;
        std::copy_n(k.begin() + rows[b] * k_size, k_size, alone.k.begin() + to);
        std::copy_n(v.begin() + rows[b] * k_size, k_size, alone.v.begin() + to);
      }
      alone.Rebuild();
      Attention shared = alone.attention();
      std::vector<std::int64_t> starts;
      for (const std::int64_t row : rows) starts.push_back(row == rows[0] ? 0 : k_size);
      shared.k.starts = shared.v.starts = starts.data();
      for (const Kernel* kernel : TestedKernels()) {
        alone.Spoil();
        RunAttention(alone.attention(), *kernel);
        const std::vector<std::byte> expected = alone.output_bytes();
        alone.Spoil();
        RunAttention(shared, *kernel);
        EXPECT_EQ(alone.output_bytes(), expected) << NameOf(*kernel) << " " << spec.Name();
      }
    }
  }
}

}  // namespace
}  // namespace attnd::kernel
