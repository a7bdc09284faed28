// Each function of each kernel, called as the schedule calls them, on memory with protected neighbours: nothing is read
// or written beyond what it was given, nothing is read that was not written, and the result is the reference's.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "guarded.h"
#include "kernel/kernel.h"
#include "kernel/reference.h"
#include "kernel/visible.h"
#include "problem.h"

namespace attnd::kernel {
namespace {

using tensor::DType;

constexpr std::size_t kAligned = 64;
constexpr std::int64_t kPageRows = 10;  // no multiple of a packet

// A problem whose tensors and results lie in guarded memory; keys and values in segments or in pages.
class GuardedProblem {
 public:
  GuardedProblem(const ProblemSpec& spec, Guard guard, bool pages)
      : problem_(spec),
        expected_(Expect(problem_)),
        guard_(guard),
        attention_(problem_.attention()),
        out_(problem_.output_bytes().size() - static_cast<std::size_t>(spec.misalignment), guard),
        log_sum_exp_(problem_.log_sum_exp().size() * sizeof(float), guard, sizeof(float)) {
    attention_.q = InSegments(attention_.q);
    attention_.k = pages ? InPages(attention_.k, spec.kv_heads, spec.keys, spec.head_dim) : InSegments(attention_.k);
    attention_.v =
        pages ? InPages(attention_.v, spec.kv_heads, spec.keys, spec.value_head_dim) : InSegments(attention_.v);
    if (attention_.key_bits != nullptr) {
      attention_.key_bits = Copy(attention_.key_bits, static_cast<std::size_t>(spec.batch * ((spec.keys + 7) / 8)));
    }
    if (attention_.key_bias != nullptr) attention_.key_bias = Floats(attention_.key_bias, spec.heads * spec.keys);
    if (attention_.bias != nullptr) {
      bias_ = *attention_.bias;
      bias_.values = Floats(bias_.values, spec.heads * bias_.head_stride);
      attention_.bias = &bias_;
    }
    attention_.out.data = out_.data();
    if (attention_.log_sum_exp != nullptr) attention_.log_sum_exp = reinterpret_cast<float*>(log_sum_exp_.data());
  }

  const Attention& attention() const { return attention_; }
  Guard guard() const { return guard_; }

  void Spoil() {
    std::memset(out_.data(), 0xff, out_.size());
    std::memset(log_sum_exp_.data(), 0xff, log_sum_exp_.size());
  }

  void ExpectResult(const std::string& what) const {
    const OutputView& out = attention_.out;
    const Segment segment{out.data, out_.size()};
    const TensorView view{&segment, 1, out.dtype, out.batch_stride, out.head_stride, out.row_stride};
    std::size_t at = 0, row = 0;
    for (std::int64_t b = 0; b < attention_.batch; ++b) {
      for (std::int64_t h = 0; h < attention_.heads; ++h) {
        for (std::int64_t r = 0; r < attention_.query_length; ++r, ++row) {
          for (std::int64_t d = 0; d < attention_.value_head_dim; ++d, ++at) {
            ASSERT_NEAR(ElementAt(view, b, h, r, d), expected_.output[at], expected_.output_tolerance[at])
                << what << ": entry " << b << " head " << h << " row " << r << " column " << d;
          }
          if (attention_.log_sum_exp == nullptr) continue;
          const float sum = attention_.log_sum_exp[row];
          const double expected = expected_.log_sum_exp[row];
          ASSERT_TRUE(std::isinf(expected) ? static_cast<double>(sum) == expected
                                           : std::abs(sum - expected) <= expected_.log_sum_exp_tolerance[row])
              << what << ": log-sum-exp of entry " << b << " head " << h << " row " << r << ": " << sum << ", expected "
              << expected;
        }
      }
    }
  }

 private:
  std::byte* Copy(const void* from, std::size_t size) {
    Guarded& block = keep_.emplace_back(size, guard_);
    std::memcpy(block.data(), from, size);
    return block.data();
  }
  const float* Floats(const float* from, std::int64_t count) {
    Guarded& block = keep_.emplace_back(static_cast<std::size_t>(count) * sizeof(float), guard_, sizeof(float));
    std::memcpy(block.data(), from, block.size());
    return reinterpret_cast<const float*>(block.data());
  }

  TensorView InSegments(TensorView view) {
    std::vector<Segment>& segments = segments_.emplace_back(view.segments, view.segments + view.segment_count);
    for (Segment& segment : segments) segment.data = Copy(segment.data, segment.size);
    view.segments = segments.data();
    return view;
  }

  // Pages of kPageRows rows of all heads; the rows that the last page has beyond the tensor stay unwritten.
  TensorView InPages(const TensorView& from, std::int64_t heads, std::int64_t rows, std::int64_t dim) {
    const std::int64_t size = static_cast<std::int64_t>(tensor::SizeOf(from.dtype));
    std::vector<const std::byte* const*>& lists = lists_.emplace_back();
    for (std::int64_t b = 0; b < attention_.batch; ++b) {
      std::vector<const std::byte*> list;
      for (std::int64_t first = 0; first < rows; first += kPageRows) {
        Guarded& page = keep_.emplace_back(static_cast<std::size_t>(heads * kPageRows * dim * size), guard_);
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t r = first; r < std::min(rows, first + kPageRows); ++r) {
            for (std::int64_t i = 0; i < dim * size; ++i) {
              page.data()[((h * kPageRows + r - first) * dim) * size + i] =
                  ByteAt(from, PlaceOf(from, b, h, r) * size + i);
            }
          }
        }
        list.push_back(page.data());
      }
      Guarded& table = keep_.emplace_back(list.size() * sizeof(list[0]), guard_, alignof(const std::byte*));
      std::memcpy(table.data(), list.data(), table.size());
      lists.push_back(reinterpret_cast<const std::byte* const*>(table.data()));
    }
    TensorView view = from;
    view.pages = lists.data();
    view.page_rows = kPageRows;
    view.head_stride = kPageRows * dim;
    view.row_stride = dim;
    return view;
  }
  static std::byte ByteAt(const TensorView& view, std::int64_t position) {
    std::int64_t segment = 0;
    auto at = static_cast<std::size_t>(position);
    while (at >= view.segments[segment].size) at -= view.segments[segment++].size;
    return view.segments[segment].data[at];
  }

  Problem problem_;
  const Expected expected_;
  const Guard guard_;
  Attention attention_;
  BiasView bias_{};
  std::deque<Guarded> keep_;
  std::deque<std::vector<Segment>> segments_;
  std::deque<std::vector<const std::byte* const*>> lists_;
  Guarded out_, log_sum_exp_;
};

// Calls `step(first, last)` for pieces of [first, last) of `most` keys.
void InPieces(std::int64_t first, std::int64_t last, std::int64_t most,
              const std::function<void(std::int64_t, std::int64_t)>& step) {
  for (; first < last; first += most) step(first, std::min(last, first + most));
}

std::int64_t LastKey(const Attention& a, std::int64_t batch) {
  return std::max(KeyStart(a, batch), KeyLength(a, batch));
}

// Calls `step(entry, kv_head)` for each unit that sees a key, and clears the rows of the others and the unused rows.
void ForEachUnit(const Kernel& kernel, const Attention& a,
                 const std::function<void(std::int64_t, std::int64_t)>& step) {
  for (std::int64_t b = 0; b < a.batch; ++b) {
    const bool any = QueryLength(a, b) > 0 && LastKey(a, b) > KeyStart(a, b);
    for (std::int64_t h = 0; h < a.heads; ++h) {
      kernel.clear(a, b, h, any ? QueryLength(a, b) : 0, a.query_length);
    }
    for (std::int64_t g = 0; any && g < a.kv_heads; ++g) step(b, g);
  }
}

// Tiles over packed keys. With `splits`, each piece of keys gives a partial result, and these are merged.
void RunTiles(const Kernel& kernel, const GuardedProblem& problem, std::int64_t piece, bool splits) {
  const Attention& a = problem.attention();
  const Guard guard = problem.guard();
  const auto scratch = [&] { return std::make_unique<Guarded>(kernel.scratch_bytes(a), guard, kAligned); };
  ForEachUnit(kernel, a, [&](std::int64_t b, std::int64_t g) {
    const std::int64_t first = KeyStart(a, b), last = LastKey(a, b);
    const Guarded keys(kernel.packed_key_bytes(a, last - first), guard, kAligned);
    const Guarded values(kernel.packed_value_bytes(a, last - first), guard, kAligned);
    PackedHead packed{keys.data(), kernel.values_in_place(a, b, g, first, last), first, last - first};
    const bool packs_values = packed.values_data == nullptr;
    if (packs_values) packed.values_data = values.data();
    InPieces(first, last, piece, [&](std::int64_t from, std::int64_t to) {
      kernel.pack_keys(a, b, g, from, to, packed, scratch()->data());
      if (!packs_values) return;
      kernel.pack_values(a, b, g, from, to, values.data() + kernel.packed_value_bytes(a, from - first),
                         scratch()->data());
    });

    const std::int64_t group = a.heads / a.kv_heads, queries = QueryLength(a, b);
    const std::int64_t rows = group * queries, count = splits ? (last - first + piece - 1) / piece : 0;
    const Guarded partials(static_cast<std::size_t>(count * rows * PartialFloats(a)) * sizeof(float), guard,
                           sizeof(float));
    for (std::int64_t row = 0; row < rows; row += std::min(kernel.query_tile, queries - row % queries)) {
      const RowTile tile{b, g * group + row / queries, row % queries,
                         std::min(kernel.query_tile, queries - row % queries)};
      const Guarded state(kernel.state_bytes(a), guard, kAligned);
      if (!splits) kernel.begin(a, tile, state.data(), scratch()->data());
      std::int64_t split = 0;
      InPieces(first, last, piece, [&](std::int64_t from, std::int64_t to) {
        Ahead nothing{};
        if (splits) kernel.begin(a, tile, state.data(), scratch()->data());
        kernel.advance(a, tile, packed, from, to, nothing, state.data(), scratch()->data());
        if (!splits) return;
        kernel.save(a, tile, state.data(),
                    reinterpret_cast<float*>(partials.data()) + (split++ * rows + row) * PartialFloats(a));
      });
      if (!splits) kernel.finish(a, tile, state.data());
    }
    if (splits) kernel.merge(a, {b, 1, g}, reinterpret_cast<const float*>(partials.data()), count);
  });
}

// Direct calls of ranges of `range` keys.
void RunDirect(const Kernel& kernel, const GuardedProblem& problem, std::int64_t range) {
  const Attention& a = problem.attention();
  ForEachUnit(kernel, a, [&](std::int64_t b, std::int64_t g) {
    const std::int64_t first = KeyStart(a, b), last = LastKey(a, b);
    const std::int64_t rows = a.heads / a.kv_heads * QueryLength(a, b), count = (last - first + range - 1) / range;
    const Guarded partials(static_cast<std::size_t>(count * rows * PartialFloats(a)) * sizeof(float), problem.guard(),
                           sizeof(float));
    const Guarded scratch(kernel.direct_scratch_bytes(a), problem.guard(), kAligned);
    auto* floats = reinterpret_cast<float*>(partials.data());
    kernel.direct(a, {b, 1, g}, first, last, range, floats, scratch.data());
    kernel.merge(a, {b, 1, g}, floats, count);
  });
}

// Each feature alone, and all of them.
std::vector<ProblemSpec> WithFeatures(const ProblemSpec& plain) {
  std::mt19937 random(plain.seed);
  std::vector<ProblemSpec> specs(10, plain);
  const auto each = [&](std::size_t one, const std::function<void(ProblemSpec&)>& set) {
    set(specs[one]);
    set(specs.back());
  };
  each(1, [](ProblemSpec& s) { s.query_lengths = {s.queries, s.queries / 2}; });
  each(2, [](ProblemSpec& s) { s.key_lengths = {s.keys - s.keys / 5, s.keys}; });
  each(3, [](ProblemSpec& s) { s.key_starts = {s.keys / 7, 0}; });
  each(4, [](ProblemSpec& s) { s.query_offsets = {s.query_offset + 3, s.query_offset - 5}; });
  each(5, [](ProblemSpec& s) { s.left = s.keys / 3; });
  each(6, [](ProblemSpec& s) { s.prefix_lengths = {s.keys / 2, s.keys}; });
  each(7, [](ProblemSpec& s) { s.key_bias = true; });
  std::vector<bool> bits;
  for (std::int64_t i = 0; i < plain.batch * plain.keys; ++i) bits.push_back(random() % 4 != 0);
  each(8, [&bits](ProblemSpec& s) { s.key_bits = bits; });
  return specs;
}

struct Size {
  std::int64_t queries, keys, head_dim, value_head_dim, kv_heads = 2;
};
// Around packets, panels and tiles.
constexpr Size kSizes[] = {{1, 10, 8, 8},     {1, 1, 1, 1},     {2, 9, 16, 16},    {3, 40, 5, 33},
                           {2, 401, 24, 7},   {1, 800, 64, 64}, {7, 17, 33, 20},   {30, 33, 16, 16},
                           {97, 400, 12, 19}, {100, 60, 8, 8},  {25, 770, 17, 24}, {8, 300, 16, 24, 4}};

class MemoryTest : public testing::TestWithParam<std::size_t> {};  // an index of kSizes
INSTANTIATE_TEST_SUITE_P(Sizes, MemoryTest, testing::Range<std::size_t>(0, std::size(kSizes)));

// Each feature, with dtypes, layouts, pieces and biases in turn.
std::vector<ProblemSpec> SpecsOf(std::size_t number) {
  constexpr BiasKind kBiases[] = {BiasKind::kNone, BiasKind::kCausal, BiasKind::kBidirectional, BiasKind::kSlopes};
  const Size& size = kSizes[number];
  std::vector<ProblemSpec> specs;
  for (std::size_t feature = 0; feature < 12; ++feature) {
    const std::size_t turn = 12 * number + feature;
    ProblemSpec spec{.batch = 2, .heads = 4, .queries = size.queries, .keys = size.keys};
    spec.kv_heads = size.kv_heads;
    spec.head_dim = size.head_dim;
    spec.value_head_dim = size.value_head_dim;
    spec.dtype = static_cast<DType>(turn % 3);
    spec.out_dtype = static_cast<DType>((turn / 3) % 3);
    spec.rows_before_heads = turn % 2 == 1;
    spec.segment_bytes = turn % 4 == 2 ? 700 : 0;
    spec.query_offset = size.keys - size.queries;
    spec.bias = kBiases[(turn / 2) % 4];
    spec.bias_span = turn % 5 == 0 ? 3 : 60;
    spec.log_sum_exp = turn % 5 != 0;
    spec.precision = ProductPrecision::kBF16;
    spec.seed = static_cast<std::uint32_t>(turn + 1);
    spec = WithFeatures(spec)[std::min<std::size_t>(feature, 9)];  // all of them in each dtype
    spec.mask = turn % 3 == 0 && spec.prefix_lengths.empty() ? Mask::kNone : Mask::kCausal;
    specs.push_back(spec);
  }
  return specs;
}

TEST_P(MemoryTest, NothingBeyondItIsTouchedAndTheResultIsRight) {
  std::size_t number = 12 * GetParam();
  for (const ProblemSpec& spec : SpecsOf(GetParam())) {
    ++number;
    GuardedProblem problem(spec, number % 4 == 2 ? Guard::kBefore : Guard::kAfter, /*pages=*/number % 3 == 1);
    const Attention& a = problem.attention();
    for (const Kernel* kernel : TestedKernels()) {
      const std::string name = absl::StrCat(kernel->name, ", ", spec.Name());
      const auto expect = [&](const std::string& way, const std::function<void()>& run) {
        problem.Spoil();
        run();
        problem.ExpectResult(absl::StrCat(way, ", ", name));
      };
      const std::int64_t block = kernel->key_block;
      if (a.key_length > block) expect("tiles", [&] { RunTiles(*kernel, problem, 2 * block, false); });
      expect("tiles in pieces", [&] { RunTiles(*kernel, problem, block, false); });
      expect("tiles in splits", [&] { RunTiles(*kernel, problem, block, true); });
      for (const std::int64_t range : {std::int64_t{1} << 20, std::int64_t{64}, std::int64_t{7}}) {
        if (a.heads / a.kv_heads * a.query_length > kernel->direct_rows) break;
        expect(absl::StrCat("direct, ranges of ", range), [&] { RunDirect(*kernel, problem, range); });
      }
      if (HasFatalFailure()) return;
    }
  }
}

// Each range's partial result is, to the bit, that of a call for this range alone, wherever a window begins.
TEST(Memory, DirectRangesAreIndependent) {
  for (const std::int64_t queries : {1, 3, 8}) {
    for (const std::int64_t left : {kAnyDistance, std::int64_t{150}, std::int64_t{333}, std::int64_t{600}}) {
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        ProblemSpec spec{.queries = queries, .keys = 900, .head_dim = 16, .value_head_dim = 20, .dtype = dtype};
        spec.query_offset = 900 - queries;
        spec.left = left;
        const Problem problem(spec);
        const Attention& a = problem.attention();
        for (const Kernel* kernel : TestedKernels()) {
          for (const std::int64_t range : {64, 100, 300, 512}) {
            const std::int64_t count = (900 + range - 1) / range, floats = queries * PartialFloats(a);
            const Guarded all(static_cast<std::size_t>(count * floats) * sizeof(float), Guard::kAfter, sizeof(float));
            const Guarded one(static_cast<std::size_t>(floats) * sizeof(float), Guard::kAfter, sizeof(float));
            const Guarded scratch(kernel->direct_scratch_bytes(a), Guard::kAfter, kAligned);
            kernel->direct(a, {0, 1, 0}, 0, 900, range, reinterpret_cast<float*>(all.data()), scratch.data());
            for (std::int64_t i = 0; i < count; ++i) {
              kernel->direct(a, {0, 1, 0}, i * range, std::min<std::int64_t>(900, (i + 1) * range), range,
                             reinterpret_cast<float*>(one.data()), scratch.data());
              ASSERT_EQ(std::memcmp(all.data() + i * floats * 4, one.data(), one.size()), 0)
                  << kernel->name << ", range " << i << " of " << range << " keys, " << spec.Name();
            }
          }
        }
      }
    }
  }
}

// NaN in every value that no row sees, in each way of computing: it must not meet a weight, not even one of zero.
TEST(Memory, ValuesThatNoRowSeesAreNotMultiplied) {
  for (const std::int64_t queries : {2, 30}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const std::int64_t dim : {16, 20}) {
        for (int mask = 0; mask < 4; ++mask) {
          ProblemSpec spec{.batch = 1, .heads = 2, .queries = queries, .keys = 500, .head_dim = 16};
          spec.value_head_dim = dim;
          spec.dtype = dtype;
          spec.precision = ProductPrecision::kBF16;
          spec.query_offset = mask == 0 ? 200 : 500 - queries;
          if (mask == 1) spec.left = 100;
          if (mask == 2) spec.key_lengths = {333};
          for (int j = 0; mask == 3 && j < 500; ++j) spec.key_bits.push_back(j % 5 != 1);
          Problem clean(spec), poisoned(spec);
          const std::int64_t last = spec.query_offset + queries - 1;
          for (std::int64_t j = 0; j < 500; ++j) {
            const bool seen = j <= last && (mask != 1 || j >= spec.query_offset - 100) && (mask != 2 || j < 333) &&
                              (mask != 3 || j % 5 != 1);
            if (seen) continue;
            for (std::int64_t d = 0; d < dim; ++d) {
              poisoned.v[static_cast<std::size_t>(j * dim + d)] = std::numeric_limits<float>::quiet_NaN();
            }
          }
          poisoned.Rebuild();
          ExpectSameBits(poisoned, clean);
        }
      }
    }
  }
}

// NaN in one value makes NaN of the rows that see it, and of no other, wherever masks and window put its edge.
TEST(Memory, AValueReachesOnlyTheRowsThatSeeIt) {
  for (const std::int64_t queries : {3, 30}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const std::int64_t dim : {16, 20}) {
        for (int mask = 0; mask < 4; ++mask) {
          ProblemSpec spec{.queries = queries, .keys = 460, .head_dim = 8, .value_head_dim = dim, .dtype = dtype};
          spec.precision = ProductPrecision::kBF16;
          spec.query_offset = 420;
          if (mask > 0) spec.left = 50;
          if (mask == 2) spec.prefix_lengths = {425};
          if (mask == 3) {
            spec.mask = Mask::kNone;
            spec.bias = BiasKind::kBidirectional;
            spec.right = 9;
          }
          for (const std::int64_t key : {370, 371, 375, 384, 390, 420, 421, 424, 425, 430, 433, 444, 458}) {
            Problem problem(spec);
            for (std::int64_t d = 0; d < dim; ++d) {
              problem.v[static_cast<std::size_t>(key * dim + d)] = std::numeric_limits<float>::quiet_NaN();
            }
            problem.Rebuild();
            ExpectKernelsAgree(problem, Expect(problem));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace attnd::kernel
