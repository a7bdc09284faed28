// Keys and values in pages, and batch entries that are computed together because they share them. Each is, to the bit,
// what the same keys and values are in one piece.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "kernel/reference.h"
#include "problem.h"
#include "schedule/attention_plan.h"

namespace attnd::kernel {
namespace {

using tensor::DType;

// The pages of one batch entry of a problem: in each the keys of all heads, and then their values. They stand in random
// order in one block, which begins `misalignment` bytes off a cache line, and what no row needs is NaN.
class Pages {
 public:
  Pages(const Attention& a, std::int64_t batch, std::int64_t page_rows, std::mt19937& random, std::int64_t misalignment)
      : page_rows_(page_rows) {
    const std::int64_t pages = (a.key_length + page_rows - 1) / page_rows;
    const auto size = static_cast<std::int64_t>(tensor::SizeOf(a.k.dtype));
    const std::int64_t page_bytes = a.kv_heads * page_rows * (a.head_dim + a.value_head_dim) * size;
    memory_.assign(static_cast<std::size_t>(64 + misalignment + pages * page_bytes), std::byte{0xff});
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    std::byte* const begin = memory_.data() + (64 - address % 64) % 64 + misalignment;
    std::vector<std::int64_t> order(static_cast<std::size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (const std::int64_t place : order) list_.push_back(begin + place * page_bytes);
    Copy(a.k, batch, a.kv_heads, a.key_length, a.head_dim, 0);
    Copy(a.v, batch, a.kv_heads, a.key_length, a.value_head_dim, a.kv_heads * page_rows * a.head_dim);
  }

  const std::byte* const* list() const { return list_.data(); }

 private:
  // `view` is in one piece.
  void Copy(const TensorView& view, std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t dim,
            std::int64_t begin) {
    const std::size_t size = tensor::SizeOf(view.dtype);
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t to = begin + (h * page_rows_ + r % page_rows_) * dim;
        const std::int64_t from = PlaceOf(view, batch, h, r);
        std::memcpy(const_cast<std::byte*>(list_[static_cast<std::size_t>(r / page_rows_)]) +
                        static_cast<std::size_t>(to) * size,
                    view.segments[0].data + static_cast<std::size_t>(from) * size,
                    static_cast<std::size_t>(dim) * size);
      }
    }
  }

  const std::int64_t page_rows_;
  std::vector<std::byte> memory_;
  std::vector<const std::byte*> list_;
};

// A problem whose keys and values are in pages. Entry b reads those of entry rows[b] of the problem; null: its own.
class InPages {
 public:
  InPages(const Attention& a, std::int64_t page_rows, std::int64_t misalignment = 0,
          const std::vector<std::int64_t>* rows = nullptr)
      : attention_(a) {
    std::mt19937 random(7);
    for (std::int64_t b = 0; b < a.batch; ++b) {
      pages_.push_back(std::make_unique<Pages>(a, b, page_rows, random, misalignment));
    }
    for (std::int64_t b = 0; b < a.batch; ++b) {
      const std::int64_t row = rows == nullptr ? b : (*rows)[static_cast<std::size_t>(b)];
      lists_.push_back(pages_[static_cast<std::size_t>(row)]->list());
    }
    const auto in_pages = [&](TensorView& view, std::int64_t dim, std::int64_t begin) {
      view = {.segments = nullptr,
              .segment_count = 0,
              .dtype = view.dtype,
              .batch_stride = 0,
              .head_stride = page_rows * dim,
              .row_stride = dim,
              .pages = lists_.data(),
              .page_rows = page_rows,
              .page_begin = begin};
    };
    in_pages(attention_.k, a.head_dim, 0);
    in_pages(attention_.v, a.value_head_dim, a.kv_heads * page_rows * a.head_dim);
  }

  const Attention& attention() const { return attention_; }

 private:
  Attention attention_;
  std::vector<std::unique_ptr<Pages>> pages_;
  std::vector<const std::byte* const*> lists_;
};

// Bytes of the outputs, then the log-sum-exps.
struct Result {
  std::vector<std::byte> output;
  std::vector<float> log_sum_exp;
  bool operator==(const Result&) const = default;
};
Result ResultOf(Problem& problem, const Attention& attention, const Kernel& kernel, int threads = 1) {
  problem.Spoil();
  RunAttention(attention, kernel, threads);
  return {problem.output_bytes(), problem.log_sum_exp()};
}

void ExpectPagesAreATensor(const ProblemSpec& spec, const std::vector<std::int64_t>& rows_of_pages) {
  Problem problem(spec);
  for (const Kernel* kernel : TestedKernels()) {
    const Result expected = ResultOf(problem, problem.attention(), *kernel);
    for (const std::int64_t page_rows : rows_of_pages) {
      const InPages pages(problem.attention(), page_rows, page_rows % 16 == 0 ? 0 : 1);
      EXPECT_TRUE(ResultOf(problem, pages.attention(), *kernel, 3) == expected)
          << NameOf(*kernel) << " " << spec.Name() << ", " << page_rows << " rows a page";
    }
  }
}

TEST(Pages, InAnyOrderAreATensorInEveryWayOfCutting) {
  for (const ProblemSpec& spec : EveryWay()) ExpectPagesAreATensor(spec, {1, 50, 64, 4096});
}

// The last page is not full, heads are not whole packets, and keys are hidden in each way there is.
TEST(Pages, WithEveryMask) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const std::int64_t queries : {1, 3, 150}) {
      ProblemSpec spec{.batch = 3, .heads = 2, .kv_heads = 1, .queries = queries, .keys = 777, .head_dim = 20};
      spec.value_head_dim = 13;
      spec.dtype = dtype;
      spec.query_offsets = {777 - queries, 500, 90};
      spec.key_lengths = {777, 640, 300};
      spec.key_starts = {0, 63, 65};
      spec.prefix_lengths = {0, 10, 290};
      spec.left = 400;
      spec.key_bias = true;
      for (int i = 0; i < 3 * 777; ++i) spec.key_bits.push_back(i % 5 != 2);
      ExpectPagesAreATensor(spec, {5, 64});
      spec.head_dim = spec.value_head_dim = 32;
      ExpectPagesAreATensor(spec, {5, 64});
    }
  }
}

TEST(Pages, TheReferenceReadsThem) {
  Problem problem({.batch = 2, .heads = 2, .kv_heads = 2, .queries = 3, .keys = 40, .head_dim = 8, .query_offset = 37});
  const InPages pages(problem.attention(), 16);
  std::vector<double> expected(problem.output_bytes().size() / 4), got(expected.size());
  Reference(problem.attention(), expected.data(), nullptr);
  Reference(pages.attention(), got.data(), nullptr);
  EXPECT_EQ(got, expected);
}

// How many entries the units of a plan have.
std::vector<std::int64_t> EntriesOf(const Attention& attention, const Kernel& kernel) {
  const schedule::AttentionPlan plan(attention, kernel);
  std::vector<std::int64_t> entries;
  for (std::int64_t entry = 0; entry < attention.batch; entry += entries.back()) {
    entries.push_back(plan.UnitOf(entry).entries);
  }
  return entries;
}

// Gives each entry of `problem` the keys and values of the entry that `rows` names.
void ShareKeys(Problem& problem, const std::vector<std::int64_t>& rows) {
  const ProblemSpec& spec = problem.spec();
  const auto share = [&](std::vector<float>& values, std::int64_t dim) {
    const std::int64_t size = spec.kv_heads * spec.keys * dim;
    const std::vector<float> own = values;
    for (std::size_t b = 0; b < rows.size(); ++b) {
      std::copy_n(own.begin() + rows[b] * size, size, values.begin() + static_cast<std::int64_t>(b) * size);
    }
  };
  share(problem.k, spec.head_dim);
  share(problem.v, spec.value_head_dim);
  problem.Rebuild();
}

// Beams of sources, some of them more than a unit has rows, some that come back, and one alone.
const std::vector<std::int64_t> kBeams = {0, 0, 0, 0, 4, 5, 5, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5};

ProblemSpec Beams(DType dtype, std::int64_t queries, std::int64_t keys) {
  ProblemSpec spec{.batch = static_cast<std::int64_t>(kBeams.size()), .heads = 4, .kv_heads = 4, .queries = queries};
  spec.keys = keys;
  spec.dtype = dtype;
  spec.head_dim = spec.value_head_dim = 32;
  spec.mask = Mask::kNone;
  spec.bias = BiasKind::kBidirectional;
  spec.query_offset = 40;
  return spec;
}

TEST(SharedKeys, BeamsAreComputedTogetherAndGetWhatTheyGetAlone) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const std::int64_t queries : {1, 2, 40}) {
      for (const std::int64_t keys : {100, 2500}) {
        Problem problem(Beams(dtype, queries, queries == 40 ? 200 : keys));
        ShareKeys(problem, kBeams);
        const Attention& alone = problem.attention();
        Attention shared = alone;
        std::vector<std::int64_t> k_starts, v_starts;
        for (const std::int64_t row : kBeams) {
          k_starts.push_back(row * alone.k.batch_stride);
          v_starts.push_back(row * alone.v.batch_stride);
        }
        shared.k.starts = k_starts.data();
        shared.v.starts = v_starts.data();
        const InPages pages(alone, 64, 0, &kBeams);
        const std::vector<std::int64_t> one_each(kBeams.size(), 1);
        for (const Kernel* kernel : TestedKernels()) {
          std::vector<std::int64_t> together = one_each;
          if (queries == 1) together = {4, 1, 2, 2, 8, 2};
          if (queries == 2) together = {4, 1, 2, 2, 4, 4, 2};
          EXPECT_EQ(EntriesOf(shared, *kernel), together);
          EXPECT_EQ(EntriesOf(pages.attention(), *kernel), together);
          EXPECT_EQ(EntriesOf(alone, *kernel), one_each);
          const Result expected = ResultOf(problem, alone, *kernel);
          EXPECT_TRUE(ResultOf(problem, shared, *kernel) == expected)
              << NameOf(*kernel) << " " << problem.spec().Name();
          EXPECT_TRUE(ResultOf(problem, pages.attention(), *kernel, 3) == expected)
              << NameOf(*kernel) << " " << problem.spec().Name();
        }
      }
    }
  }
}

// Each difference in what two entries see of the keys that they share keeps them apart; the third is as the second.
TEST(SharedKeys, EntriesThatSeeOtherKeysAreApart) {
  const ProblemSpec base{
      .batch = 3, .queries = 2, .keys = 90, .head_dim = 16, .value_head_dim = 16, .query_offset = 60};
  std::vector<ProblemSpec> specs(6, base);
  specs[0].query_lengths = {2, 1, 1};
  specs[1].key_lengths = {90, 61, 61};
  specs[2].query_offsets = {60, 61, 61};
  specs[3].key_starts = {1, 3, 3};
  specs[4].prefix_lengths = {0, 80, 80};
  for (int i = 0; i < 3 * 90; ++i) specs[5].key_bits.push_back(i != 89);
  const std::vector<std::int64_t> rows = {0, 0, 0};
  for (const ProblemSpec& spec : specs) {
    Problem problem(spec);
    ShareKeys(problem, rows);
    Attention shared = problem.attention();
    const std::vector<std::int64_t> starts = {0, 0, 0};
    shared.k.starts = shared.v.starts = starts.data();
    const Expected expected = Expect(problem);
    for (const Kernel* kernel : TestedKernels()) {
      EXPECT_EQ(EntriesOf(shared, *kernel), (std::vector<std::int64_t>{1, 2})) << spec.Name();
      EXPECT_TRUE(ResultOf(problem, shared, *kernel) == ResultOf(problem, problem.attention(), *kernel)) << spec.Name();
    }
    ExpectKernelsAgree(problem, expected);
  }
}

// Sequences with a common beginning have the pages of that beginning in common, and the others for themselves.
TEST(SharedKeys, EntriesThatShareSomePagesReadTheirOwn) {
  constexpr std::int64_t kPageRows = 16, kPages = 6, kKeys = 90;
  const std::pair<std::int64_t, std::int64_t> kShared[] = {{0, 1}, {0, 5}, {1, 6}, {5, 6}, {2, 4}};
  for (const std::pair<std::int64_t, std::int64_t>& common : kShared) {
    const std::int64_t from = common.first, to = common.second;
    Problem problem({.batch = 3, .heads = 2, .kv_heads = 2, .keys = kKeys, .head_dim = 16, .query_offset = kKeys - 1});
    const auto share = [&](std::vector<float>& values, std::int64_t dim) {
      const std::int64_t first = from * kPageRows, last = std::min(kKeys, to * kPageRows);
      for (std::int64_t row = 2; row < 3 * 2; ++row) {  // (entry, head), from entry 1 on
        std::copy_n(values.begin() + (row % 2 * kKeys + first) * dim, (last - first) * dim,
                    values.begin() + (row * kKeys + first) * dim);
      }
    };
    share(problem.k, problem.spec().head_dim);
    share(problem.v, problem.spec().value_head_dim);
    problem.Rebuild();
    const InPages pages(problem.attention(), kPageRows);
    Attention shared = pages.attention();
    std::vector<std::vector<const std::byte*>> lists;
    std::vector<const std::byte* const*> tables;
    for (std::int64_t b = 0; b < 3; ++b) {
      lists.emplace_back(shared.k.pages[b], shared.k.pages[b] + kPages);
      std::copy(shared.k.pages[0] + from, shared.k.pages[0] + to, lists.back().begin() + from);
    }
    for (const auto& list : lists) tables.push_back(list.data());
    shared.k.pages = shared.v.pages = tables.data();
    for (const Kernel* kernel : TestedKernels()) {
      EXPECT_EQ(EntriesOf(shared, *kernel), (std::vector<std::int64_t>{1, 1, 1}));
      EXPECT_TRUE(ResultOf(problem, shared, *kernel) == ResultOf(problem, problem.attention(), *kernel))
          << NameOf(*kernel) << ", pages " << from << " to " << to;
    }
  }
}

// Rows that a batch entry does not have are zeros for each of those that are computed together.
TEST(SharedKeys, UnusedRowsOfEachAreZeros) {
  for (const std::int64_t keys : {50, 5000}) {
    ProblemSpec spec{.batch = 3, .queries = 4, .keys = keys, .head_dim = 16, .value_head_dim = 16};
    spec.query_lengths = {2, 2, 2};
    spec.query_offset = keys - 2;
    Problem problem(spec);
    ShareKeys(problem, {0, 0, 0});
    Attention shared = problem.attention();
    const std::vector<std::int64_t> starts = {0, 0, 0};
    shared.k.starts = shared.v.starts = starts.data();
    for (const Kernel* kernel : TestedKernels()) {
      EXPECT_EQ(EntriesOf(shared, *kernel), (std::vector<std::int64_t>{3}));
      EXPECT_TRUE(ResultOf(problem, shared, *kernel) == ResultOf(problem, problem.attention(), *kernel)) << keys;
    }
  }
}

// The same rows as entries that share keys, as heads that do, and one at a time.
TEST(SharedKeys, AreGroupedQueriesInAnyComposition) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const std::int64_t keys : {90, 3000, 9000}) {
      ProblemSpec grouped_spec{.batch = 1, .heads = 6, .kv_heads = 1, .queries = 1, .keys = keys, .dtype = dtype};
      grouped_spec.bias = BiasKind::kNone;
      grouped_spec.query_offset = keys - 1;
      Problem grouped(grouped_spec);
      ProblemSpec beams_spec = grouped_spec;
      beams_spec.batch = 6;
      beams_spec.heads = 1;
      Problem beams(beams_spec);
      beams.q = grouped.q;
      std::copy(grouped.k.begin(), grouped.k.end(), beams.k.begin());
      std::copy(grouped.v.begin(), grouped.v.end(), beams.v.begin());
      beams.Rebuild();
      Attention shared = beams.attention();
      const std::vector<std::int64_t> starts(6, 0);
      shared.k.starts = shared.v.starts = starts.data();
      for (const Kernel* kernel : TestedKernels()) {
        const Result expected = ResultOf(grouped, grouped.attention(), *kernel);
        EXPECT_TRUE(ResultOf(beams, shared, *kernel) == expected) << NameOf(*kernel) << " " << keys;
        beams.Spoil();
        for (std::int64_t b = 0; b < 6; ++b) {
          Attention one = shared;
          one.batch = 1;
          const std::int64_t row = b * one.q.batch_stride;
          one.q.starts = &row;
          one.out.data += b * one.out.batch_stride * 4;
          one.log_sum_exp += b;
          RunAttention(one, *kernel);
        }
        EXPECT_TRUE(beams.output_bytes() == expected.output) << NameOf(*kernel) << " " << keys;
        EXPECT_EQ(beams.log_sum_exp(), expected.log_sum_exp);
      }
    }
  }
}

}  // namespace
}  // namespace attnd::kernel
