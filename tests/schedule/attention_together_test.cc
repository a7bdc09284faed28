// All features together, in each way of cutting: ragged batches, grouped heads, keys beyond what one pass holds, masks,
// windows, shared keys, every dtype, with few open units. Against the formula, on dirty outputs and in dirty memory.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../kernel/problem.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "guarded_memory.h"
#include "kernel/kernel.h"
#include "kernel/visible.h"
#include "schedule/arena.h"
#include "schedule/attention_work.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::AvailableKernels;
using kernel::BiasKind;
using kernel::Kernel;
using kernel::Problem;
using kernel::ProblemSpec;
using tensor::DType;

// Sizes that one unit of full length is cut by.
struct Shape {
  const char* name;
  Way way;
  bool split;
  std::int64_t heads, kv_heads, queries, keys, head_dim, value_head_dim;
};

// 131072 floats of keys and values are packed at a time: of those in splits, 384 keys, so that ragged ones are split
// too.
const Shape kShapes[] = {
    {"direct", Way::kDirect, false, 2, 1, 2, 60, 24, 40},
    {"direct in splits", Way::kDirect, true, 2, 2, 1, 1250, 192, 160},
    {"direct in splits, grouped", Way::kDirect, true, 4, 1, 2, 1600, 200, 144},
    {"direct in splits, wide values", Way::kDirect, true, 2, 1, 3, 1500, 32, 320},
    {"local", Way::kLocal, false, 4, 2, 9, 50, 48, 32},
    {"local in splits", Way::kLocal, true, 1, 1, 12, 1600, 192, 160},
    {"local in splits, grouped", Way::kLocal, true, 2, 1, 10, 1600, 176, 176},
    {"local in splits, wide keys", Way::kLocal, true, 4, 2, 6, 1250, 320, 32},
    {"shared", Way::kShared, false, 2, 2, 150, 180, 48, 64},
    {"shared, grouped", Way::kShared, false, 4, 2, 90, 210, 40, 16},
    {"shared, many keys", Way::kShared, false, 2, 1, 110, 640, 16, 8},
};

class Draw {
 public:
  explicit Draw(std::uint32_t seed) : random_(seed) {}
  bool OneIn(std::uint32_t n) { return random_() % n == 0; }
  std::int64_t Between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random_() % static_cast<std::uint32_t>(high - low + 1));
  }
  // All, none, one, all but one, or any.
  std::int64_t Length(std::int64_t most) {
    const std::int64_t lengths[] = {most, 0, 1, most - 1, Between(0, most), Between(most / 2, most)};
    return lengths[Between(0, 5)];
  }
  // A number for each batch entry; the first two have the same if they are to be alike.
  template <typename Number>
  std::vector<std::int64_t> Each(std::int64_t batch, bool alike, const Number& number) {
    std::vector<std::int64_t> numbers;
    for (std::int64_t b = 0; b < batch; ++b) numbers.push_back(alike && b == 1 ? numbers.back() : number());
    return numbers;
  }

 private:
  std::mt19937 random_;
};

// With every feature that the seed chooses. `alike`: entries 0 and 1 see the same of their keys.
ProblemSpec SpecOf(const Shape& shape, Draw& draw, bool alike) {
  ProblemSpec spec{.batch = 3, .heads = shape.heads, .kv_heads = shape.kv_heads};
  spec.queries = shape.queries;
  spec.keys = shape.keys;
  spec.head_dim = shape.head_dim;
  spec.value_head_dim = shape.value_head_dim;
  const DType dtypes[] = {DType::kF32, DType::kF16, DType::kBF16};
  spec.dtype = dtypes[draw.Between(0, 2)];
  spec.out_dtype = dtypes[draw.Between(0, 2)];
  spec.rows_before_heads = draw.OneIn(2);
  if (draw.OneIn(4)) spec.segment_bytes = draw.Between(1000, 9000);
  if (draw.OneIn(3)) spec.misalignment = draw.Between(1, 3);
  spec.log_sum_exp = !draw.OneIn(3);
  spec.mask = draw.OneIn(3) ? kernel::Mask::kNone : kernel::Mask::kCausal;
  spec.bias = static_cast<BiasKind>(draw.Between(0, 3));
  spec.key_bias = draw.OneIn(4);
  spec.query_offset = shape.keys - shape.queries;
  const std::int64_t batch = spec.batch;
  const auto each = [&](const auto& number) { return draw.Each(batch, alike, number); };
  if (!draw.OneIn(4)) spec.query_lengths = each([&] { return draw.Length(shape.queries); });
  if (!draw.OneIn(3)) spec.key_lengths = each([&] { return draw.Length(shape.keys); });
  if (draw.OneIn(2)) spec.key_starts = each([&] { return draw.Between(0, shape.keys / 2); });
  if (draw.OneIn(3)) {
    spec.query_offsets = each([&] { return draw.Between(-shape.queries, 2 * shape.keys - shape.queries); });
  }
  if (draw.OneIn(4)) spec.prefix_lengths = each([&] { return draw.Length(shape.keys); });
  if (draw.OneIn(4)) spec.left = draw.Between(0, shape.keys);
  if (draw.OneIn(4)) spec.right = draw.Between(0, shape.keys);
  if (draw.OneIn(4)) {
    for (std::int64_t b = 0; b < batch; ++b) {
      const std::int64_t first = draw.Between(0, shape.keys / 2), last = draw.Between(first, shape.keys);
      const auto before = static_cast<std::ptrdiff_t>(spec.key_bits.size()) - shape.keys;
      for (std::int64_t j = 0; j < shape.keys; ++j) {
        const bool copied = alike && b == 1;
        spec.key_bits.push_back(copied ? bool{spec.key_bits[static_cast<std::size_t>(before + j)]}
                                       : j >= first && j < last && !draw.OneIn(3));
      }
    }
  }
  return spec;
}

// Takes up to `running` items before one of them runs, in any order, each in an arena of its own.
void RunItems(Work& work, std::size_t running, Draw& draw) {
  std::vector<Item> taken;
  for (;;) {
    std::optional<Item> next;
    while (taken.size() < running && (next = work.Next())) taken.push_back(*next);
    if (taken.empty()) break;
    std::swap(taken[static_cast<std::size_t>(draw.Between(0, static_cast<std::int64_t>(taken.size()) - 1))],
              taken.back());
    const Item item = taken.back();
    taken.pop_back();
    Arena arena;
    work.Run(item, arena, [] { return true; });
    work.Finish(item);
  }
  EXPECT_EQ(work.ready(), 0);
}

void Compute(const Attention& a, const Kernel& kernel, std::int64_t window, std::size_t running, Draw& draw) {
  const auto work = MakeAttentionWork(a, AttentionPlan(a, kernel, window));
  ASSERT_NE(work, nullptr);
  RunItems(*work, running, draw);
}

// What is wrong with the results; empty if nothing is.
std::string Fault(const Problem& problem, const kernel::Expected& expected) {
  const std::vector<float> out = problem.Output();
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (std::abs(out[i] - expected.output[i]) <= expected.output_tolerance[i]) continue;
    return absl::StrCat("output ", i, " is ", out[i], ", expected ", expected.output[i]);
  }
  for (std::size_t i = 0; problem.spec().log_sum_exp && i < expected.log_sum_exp.size(); ++i) {
    const double is = problem.log_sum_exp()[i], should_be = expected.log_sum_exp[i];
    if (is == should_be || std::abs(is - should_be) <= expected.log_sum_exp_tolerance[i]) continue;
    return absl::StrCat("log-sum-exp ", i, " is ", is, ", expected ", should_be);
  }
  return "";
}

std::vector<std::byte> Bits(const Problem& problem) {
  std::vector<std::byte> bytes = problem.output_bytes();
  const auto* lse = reinterpret_cast<const std::byte*>(problem.log_sum_exp().data());
  bytes.insert(bytes.end(), lse, lse + problem.log_sum_exp().size() * sizeof(float));
  return bytes;
}

// A batch entry as a call of its own, which writes where it does in the batch.
class Alone {
 public:
  Alone(const Attention& all, std::int64_t b) : call(all) {
    const auto start = [b](const auto& view) {
      return view.starts != nullptr ? view.starts[b] : b * view.batch_stride;
    };
    starts_[0] = start(all.q);
    starts_[1] = start(all.k);
    starts_[2] = start(all.v);
    starts_[3] = start(all.out);
    starts_[4] = b * all.heads * all.query_length;
    call.batch = 1;
    call.q.starts = &starts_[0];
    call.k.starts = &starts_[1];
    call.v.starts = &starts_[2];
    call.out.starts = &starts_[3];
    call.log_sum_exp_starts = &starts_[4];
    call.log_sum_exp_stride = all.query_length;
    for (const std::int64_t** numbers :
         {&call.query_lengths, &call.key_lengths, &call.query_offsets, &call.key_starts, &call.prefix_lengths}) {
      if (*numbers != nullptr) *numbers += b;
    }
    if (call.key_bits != nullptr) call.key_bits += b * ((all.key_length + 7) / 8);
  }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;

  Attention call;

 private:
  std::int64_t starts_[5];
};

// Whether the rows within the query lengths have the same results.
bool SameRows(const Problem& problem, const std::vector<float>& out, const std::vector<float>& lse) {
  const Attention& a = problem.attention();
  const std::vector<float> other = problem.Output();
  std::size_t row = 0;
  for (std::int64_t b = 0; b < a.batch; ++b) {
    for (std::int64_t i = 0; i < a.heads * a.query_length; ++i, ++row) {
      if (i % a.query_length >= kernel::QueryLength(a, b)) continue;
      const auto at = static_cast<std::ptrdiff_t>(row) * a.value_head_dim;
      if (!std::equal(out.begin() + at, out.begin() + at + a.value_head_dim, other.begin() + at)) return false;
      if (problem.spec().log_sum_exp && problem.log_sum_exp()[row] != lse[row]) return false;
    }
  }
  return true;
}

// Entry 1 gets the keys and values of entry 0.
void ShareKeys(Problem& problem) {
  for (std::vector<float>* values : {&problem.k, &problem.v}) {
    const auto entry = static_cast<std::ptrdiff_t>(values->size()) / problem.attention().batch;
    std::copy_n(values->begin(), entry, values->begin() + entry);
  }
  problem.Rebuild();
}

class AttentionTogetherTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(All, AttentionTogetherTest, testing::Range(0, static_cast<int>(std::size(kShapes))),
                         [](const auto& info) {
                           std::string name = kShapes[info.param].name;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return c == ' ' || c == ','; }, '_');
                           return name;
                         });

TEST_P(AttentionTogetherTest, GivesTheFormulaAndTheSameBitsInAnyOrder) {
  const Shape& shape = kShapes[GetParam()];
  for (std::uint32_t seed = 0; seed < (shape.split ? 5u : 8u); ++seed) {
    Draw draw(1000 * static_cast<std::uint32_t>(GetParam()) + seed);
    const bool shares = seed % 2 == 0, alike = seed % 4 == 0;
    const ProblemSpec spec = SpecOf(shape, draw, alike);
    // The formula is computed from tensors in one piece: it searches each element's.
    ProblemSpec in_one_piece = spec;
    in_one_piece.segment_bytes = 0;
    Problem reference(in_one_piece);
    if (shares) ShareKeys(reference);
    std::optional<Problem> in_pieces;
    if (spec.segment_bytes > 0) {
      in_pieces.emplace(spec);
      if (shares) ShareKeys(*in_pieces);
    }
    Problem& problem = in_pieces.has_value() ? *in_pieces : reference;
    SCOPED_TRACE(absl::StrCat(shape.name, ", seed ", seed, ": ", spec.Name()));
    const kernel::Expected expected = kernel::Expect(reference);
    Attention a = problem.attention();
    const std::int64_t k_starts[] = {0, 0, 2 * a.k.batch_stride}, v_starts[] = {0, 0, 2 * a.v.batch_stride};
    if (shares) {
      a.k.starts = k_starts;
      a.v.starts = v_starts;
    }
    for (const Kernel* kernel : AvailableKernels()) {
      std::vector<std::byte> bits;
      for (const std::int64_t window : {kWindowBytes, std::int64_t{1} << 18, std::int64_t{1}}) {
        problem.Spoil();
        Compute(a, *kernel, window, window == kWindowBytes ? 1 : 9, draw);
        if (bits.empty()) {
          ASSERT_EQ(Fault(problem, expected), "") << kernel->name;
          bits = Bits(problem);
        }
        ASSERT_TRUE(Bits(problem) == bits) << kernel->name << ", window " << window;
      }
      ASSERT_EQ(test::GuardsBroken(), 0) << kernel->name;
      // A window decides where passes over the keys begin, which is not the same in each way.
      if (kernel::HasWindow(a)) continue;
      const std::vector<float> out = problem.Output(), lse = problem.log_sum_exp();
      problem.Spoil();
      for (std::int64_t b = 0; b < a.batch; ++b) {
        const Alone alone(a, b);
        Compute(alone.call, *kernel, kWindowBytes, 3, draw);
      }
      ASSERT_TRUE(SameRows(problem, out, lse)) << kernel->name << ": an entry alone has other bits";
      ASSERT_EQ(test::GuardsBroken(), 0) << kernel->name;
    }
  }
}

// The shapes are cut as they say, so that each way is tested.
TEST(AttentionTogether, ShapesAreCutAsTheySay) {
  for (const Shape& shape : kShapes) {
    ProblemSpec spec{.heads = shape.heads, .kv_heads = shape.kv_heads, .queries = shape.queries};
    spec.keys = shape.keys;
    spec.head_dim = shape.head_dim;
    spec.value_head_dim = shape.value_head_dim;
    spec.mask = kernel::Mask::kNone;
    const Problem problem(spec);
    for (const Kernel* kernel : AvailableKernels()) {
      const UnitPlan unit = AttentionPlan(problem.attention(), *kernel).UnitOf(0);
      EXPECT_EQ(unit.way, shape.way) << shape.name << ", " << kernel->name;
      EXPECT_EQ(unit.splits > 1, shape.split) << shape.name << ", " << kernel->name;
    }
  }
}

}  // namespace
}  // namespace attnd::schedule
