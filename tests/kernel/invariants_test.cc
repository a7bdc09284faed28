// What must hold whatever the numbers: bits that depend on the problem alone, and softmax's symmetries.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "problem.h"
#include "schedule/attention_work.h"
#include "schedule/scheduler.h"
#include "wait.h"

namespace attnd::kernel {
namespace {

// One for each way of cutting: whole units, direct, direct splits, local splits, shared packing; each also in bf16.
std::vector<ProblemSpec> EveryWay() {
  std::vector<ProblemSpec> specs = {
      {.batch = 3, .heads = 4, .kv_heads = 4, .queries = 33, .keys = 33, .rows_before_heads = true},
      {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 1, .keys = 300, .query_offset = 299},
      {.batch = 2, .queries = 1, .keys = 5000, .query_offset = 4999},
      {.queries = 40, .keys = 5000, .query_offset = 4960},
      {.heads = 4, .kv_heads = 2, .queries = 700, .keys = 700}};
  for (std::size_t i = 0, count = specs.size(); i < count; ++i) {
    specs.push_back(specs[i]);
    specs.back().dtype = tensor::DType::kBF16;
    specs.back().precision = ProductPrecision::kBF16;
  }
  return specs;
}

std::vector<std::byte> Bytes(Problem& problem) {
  std::vector<std::byte> bytes = problem.output_bytes();
  const auto* lse = reinterpret_cast<const std::byte*>(problem.log_sum_exp().data());
  bytes.insert(bytes.end(), lse, lse + problem.log_sum_exp().size() * sizeof(float));
  return bytes;
}

TEST(Bits, DoNotDependOnThreads) {
  for (const ProblemSpec& spec : EveryWay()) {
    Problem problem(spec);
    for (const Kernel* kernel : TestedKernels()) {
      problem.Spoil();
      RunAttention(problem.attention(), *kernel, 1);
      const std::vector<std::byte> alone = Bytes(problem);
      for (const int threads : {2, 3, 7}) {
        problem.Spoil();
        RunAttention(problem.attention(), *kernel, threads);
        EXPECT_EQ(Bytes(problem), alone) << NameOf(*kernel) << ", " << threads << " threads, " << spec.Name();
      }
    }
  }
}

// Sequences that are computed in each way, alone and beside others: some ways depend on what the whole call costs.
TEST(Bits, DoNotDependOnTheRestOfTheBatch) {
  const std::vector<std::int64_t> queries = {700, 1, 40, 33, 8, 190, 300, 150};
  const std::vector<std::int64_t> keys = {700, 5000, 5000, 33, 2000, 4000, 1300, 1301};
  for (const tensor::DType dtype : {tensor::DType::kF32, tensor::DType::kBF16}) {
    ProblemSpec spec{.batch = 8, .heads = 2, .kv_heads = 1, .queries = 700, .keys = 5000, .dtype = dtype};
    spec.head_dim = spec.value_head_dim = 32;
    spec.precision = ProductPrecision::kBF16;
    spec.query_lengths = queries;
    spec.key_lengths = keys;
    for (std::size_t i = 0; i < queries.size(); ++i) spec.query_offsets.push_back(keys[i] - queries[i]);
    Problem problem(spec);
    for (const Kernel* kernel : TestedKernels()) {
      problem.Spoil();
      RunAttention(problem.attention(), *kernel, 1);
      const std::vector<std::byte> together = Bytes(problem);
      problem.Spoil();
      for (std::int64_t b = 0; b < spec.batch; ++b) {
        Attention one = problem.attention();
        const std::int64_t q = b * one.q.batch_stride, k = b * one.k.batch_stride, v = b * one.v.batch_stride;
        one.batch = 1;
        one.q.starts = &q;
        one.k.starts = &k;
        one.v.starts = &v;
        one.out.data += b * one.out.batch_stride * 4;
        one.log_sum_exp += b * one.heads * one.query_length;
        one.query_lengths += b;
        one.key_lengths += b;
        one.query_offsets += b;
        RunAttention(one, *kernel, 1);
      }
      EXPECT_EQ(Bytes(problem), together) << NameOf(*kernel) << " " << spec.Name();
    }
  }
}

// Of a short unit with long keys: several ranges of keys one after another, of which one may have no true key, or each
// as an item.
TEST(Bits, DoNotDependOnHowManyRangesAnItemComputes) {
  constexpr std::int64_t kEntries = 96;
  for (const tensor::DType dtype : {tensor::DType::kF32, tensor::DType::kF16, tensor::DType::kBF16}) {
    ProblemSpec spec{.heads = 2, .kv_heads = 1, .queries = 2, .keys = 6000, .query_offset = 5998};
    spec.dtype = dtype;
    spec.head_dim = spec.value_head_dim = 64;
    for (std::int64_t key = 0; key < spec.keys; ++key) spec.key_bits.push_back(key < 1100 || key > 2500);
    Problem problem(spec);
    // Entries of the same tensors that see other keys.
    Attention many = problem.attention();
    many.batch = kEntries;
    many.q.batch_stride = many.k.batch_stride = many.v.batch_stride = 0;
    std::vector<std::int64_t> key_lengths;
    std::vector<std::byte> bits;
    const auto bit_bytes = static_cast<std::size_t>((spec.keys + 7) / 8);
    for (std::int64_t entry = 0; entry < kEntries; ++entry) {
      key_lengths.push_back(spec.keys - 50 * entry);
      bits.insert(bits.end(), many.key_bits, many.key_bits + bit_bytes);
    }
    std::vector<float> log_sum_exp(static_cast<std::size_t>(kEntries * many.heads * spec.queries));
    std::vector<std::byte> output(static_cast<std::size_t>(kEntries * many.out.batch_stride) * sizeof(float));
    many.key_lengths = key_lengths.data();
    many.key_bits = bits.data();
    many.out.data = output.data();
    many.log_sum_exp = log_sum_exp.data();
    for (const Kernel* kernel : TestedKernels()) {
      EXPECT_EQ(schedule::AttentionPlan(many, *kernel).UnitOf(0).splits_an_item, 4);
      RunAttention(many, *kernel, 2);
      const std::vector<std::byte> together = output;
      const std::vector<float> sums = log_sum_exp;
      std::fill(output.begin(), output.end(), std::byte{0x5a});
      std::fill(log_sum_exp.begin(), log_sum_exp.end(), 7.0f);
      for (std::int64_t entry = 0; entry < kEntries; ++entry) {
        Attention one = many;
        one.batch = 1;
        one.key_lengths += entry;
        one.out.data += entry * many.out.batch_stride * static_cast<std::int64_t>(tensor::SizeOf(many.out.dtype));
        one.log_sum_exp += entry * many.heads * spec.queries;
        EXPECT_EQ(schedule::AttentionPlan(one, *kernel).UnitOf(0).splits_an_item, 1);
        RunAttention(one, *kernel, 1);
      }
      EXPECT_EQ(output, together) << NameOf(*kernel) << " " << spec.Name();
      EXPECT_EQ(log_sum_exp, sums) << NameOf(*kernel) << " " << spec.Name();
    }
  }
}

TEST(Bits, DoNotDependOnWhatElseRuns) {
  for (const Kernel* kernel : TestedKernels()) {
    std::vector<std::unique_ptr<Problem>> problems;
    std::vector<std::vector<std::byte>> alone;
    for (int copy = 0; copy < 3; ++copy) {
      for (const ProblemSpec& spec : EveryWay()) {
        problems.push_back(std::make_unique<Problem>(spec));
        problems.back()->Spoil();
        RunAttention(problems.back()->attention(), *kernel, 1);
        alone.push_back(Bytes(*problems.back()));
        problems.back()->Spoil();
      }
    }
    std::atomic<std::size_t> ended = 0;
    schedule::Scheduler scheduler(4);
    for (const auto& problem : problems) {
      scheduler.Submit(schedule::MakeAttentionWork(problem->attention(), *kernel), {},
                       [&ended](const schedule::Outcome&) { ++ended; });
    }
    ASSERT_TRUE(test::Becomes([&] { return ended == problems.size(); })) << ended << " of " << problems.size();
    for (std::size_t i = 0; i < problems.size(); ++i) {
      EXPECT_EQ(Bytes(*problems[i]), alone[i]) << NameOf(*kernel) << ", " << problems[i]->spec().Name();
    }
  }
}

// A constant added to a head's biases changes the log-sum-exp alone.
TEST(Softmax, DoesNotSeeAConstantBias) {
  for (const Kernel* kernel : TestedKernels()) {
    Problem problem({.heads = 2, .kv_heads = 2, .queries = 100, .keys = 100});
    RunAttention(problem.attention(), *kernel);
    const std::vector<std::byte> out = problem.output_bytes();
    const std::vector<float> lse = problem.log_sum_exp();
    const std::vector<float> shifted = {problem.bias().constant[0] + 5, problem.bias().constant[1] + 5};
    problem.bias().constant = shifted.data();
    problem.Spoil();
    RunAttention(problem.attention(), *kernel);
    EXPECT_EQ(problem.output_bytes(), out);
    for (std::size_t i = 0; i < lse.size(); ++i) EXPECT_NEAR(problem.log_sum_exp()[i], lse[i] + 5, 1e-5);
  }
}

// Values of one give rows of one, wherever a row sees a key: weights sum to one.
TEST(Softmax, WeightsSumToOne) {
  for (const std::int64_t queries : {3, 333}) {
    Problem problem({.queries = queries, .keys = 333, .query_offset = 333 - queries});
    std::fill(problem.v.begin(), problem.v.end(), 1.0f);
    problem.Rebuild();
    for (const Kernel* kernel : TestedKernels()) {
      problem.Spoil();
      RunAttention(problem.attention(), *kernel);
      for (const float value : problem.Output()) ASSERT_NEAR(value, 1, 32 * 0x1p-24);
    }
  }
}

// The bias depends on the offset alone: queries and keys moved along together give the same rows. With zero queries the
// weights come from the bias only, and with keys' values repeated the rows repeat.
TEST(Bias, IsToeplitz) {
  const std::int64_t shift = 37;
  for (const Kernel* kernel : TestedKernels()) {
    Problem problem({.queries = 300, .keys = 300, .mask = Mask::kNone, .bias = BiasKind::kExplicit, .bias_span = 80});
    std::fill(problem.q.begin(), problem.q.end(), 0.0f);
    problem.Rebuild();
    Problem moved(problem.spec());
    moved.q = problem.q;
    moved.k = problem.k;
    for (std::int64_t j = 0; j < 300; ++j) {
      std::copy_n(problem.v.begin() + j * 64, 64, moved.v.begin() + (j + shift) % 300 * 64);
    }
    moved.Rebuild();
    // Rows whose window of 80 offsets lies inside on both sides; beyond it the tails must weigh nothing.
    std::vector<float> low = {-200.0f}, slope = {1000.0f};
    for (Problem* p : {&problem, &moved}) {
      p->bias().low_value = low.data();
      p->bias().high_slope = slope.data();
      p->bias().low_slope = slope.data();
      p->Spoil();
      RunAttention(p->attention(), *kernel);
    }
    const std::vector<float> first = problem.Output();
    const std::vector<float> second = moved.Output();
    for (std::int64_t i = 90; i < 300 - 90 - shift; ++i) {
      for (std::int64_t d = 0; d < 64; ++d) {
        ASSERT_NEAR(first[static_cast<std::size_t>(i * 64 + d)], second[static_cast<std::size_t>((i + shift) * 64 + d)],
                    64 * 0x1p-24)
            << NameOf(*kernel) << " row " << i;
      }
    }
  }
}

TEST(Batch, PermutedInputsGivePermutedOutputs) {
  for (const std::int64_t queries : {1, 50}) {
    const ProblemSpec spec{
        .batch = 3, .heads = 2, .kv_heads = 1, .queries = queries, .keys = 50, .query_offset = 50 - queries};
    Problem problem(spec);
    Problem rotated(spec);
    const auto rotate = [](const std::vector<float>& from, std::vector<float>& to) {
      to = from;
      std::rotate(to.begin(), to.begin() + static_cast<std::ptrdiff_t>(to.size() / 3), to.end());
    };
    rotate(problem.q, rotated.q);
    rotate(problem.k, rotated.k);
    rotate(problem.v, rotated.v);
    rotated.Rebuild();
    for (const Kernel* kernel : TestedKernels()) {
      RunAttention(problem.attention(), *kernel);
      RunAttention(rotated.attention(), *kernel);
      std::vector<float> expected;
      rotate(problem.Output(), expected);
      EXPECT_EQ(rotated.Output(), expected) << NameOf(*kernel);
    }
  }
}

}  // namespace
}  // namespace attnd::kernel
