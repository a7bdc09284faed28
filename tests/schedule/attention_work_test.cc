#include "schedule/attention_work.h"

#include <cmath>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "../kernel/problem.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "schedule/arena.h"
#include "schedule/scheduler.h"
#include "scripted.h"

namespace attnd::schedule {
namespace {

using kernel::AvailableKernels;
using kernel::Problem;
using kernel::ProblemSpec;

struct Case {
  const char* name;
  ProblemSpec spec;
};

std::vector<Case> Cases() {
  return {
      {"one row", {.queries = 1, .keys = 1}},
      {"no visible key", {.queries = 5, .keys = 5, .query_offset = -9}},
      {"decode", {.batch = 2, .heads = 8, .kv_heads = 2, .queries = 1, .keys = 9000, .query_offset = 8999}},
      {"many short", {.batch = 16, .heads = 8, .kv_heads = 8, .queries = 32, .keys = 32}},
      {"chunk", {.queries = 48, .keys = 9000, .query_offset = 8952}},
      {"long", {.heads = 2, .kv_heads = 2, .queries = 1000, .keys = 1000}},
      {"ragged",
       {.batch = 3, .queries = 600, .keys = 600, .query_lengths = {600, 0, 550}, .key_lengths = {600, 600, 590}}},
      {"starts, long", {.batch = 2, .queries = 600, .keys = 600, .query_lengths = {600, 550}, .key_starts = {99, 599}}},
      {"starts, decode", {.queries = 1, .keys = 9000, .query_offset = 8999, .key_starts = {3210}}},
  };
}

// In turns: `running` items are taken before the first of them, or the last, runs.
void RunInTurns(Work& work, std::size_t running, bool last_first) {
  Arena arena;
  std::deque<Item> taken;
  for (;;) {
    std::optional<Item> next;
    while (taken.size() < running && (next = work.Next())) taken.push_back(*next);
    if (taken.empty()) return;
    const Item item = last_first ? taken.back() : taken.front();
    last_first ? taken.pop_back() : taken.pop_front();
    work.Run(item, arena, [] { return true; });
    work.Finish(item);
  }
}

TEST(AttentionWork, ComputesTheFormulaInAnyOrder) {
  for (const Case& c : Cases()) {
    Problem problem(c.spec);
    const kernel::Expected expected = kernel::Expect(problem);
    for (const bool last_first : {false, true}) {
      problem.Spoil();
      const auto work = MakeAttentionWork(problem.attention(), *AvailableKernels().front());
      ASSERT_NE(work, nullptr);
      RunInTurns(*work, 7, last_first);
      EXPECT_EQ(work->ready(), 0);
      const std::vector<float> out = problem.Output();
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], expected.output[i], expected.output_tolerance[i]) << c.name << " at " << i;
      }
    }
  }
}

// Memory beyond inputs, outputs and packed keys and values stays below 8 MiB a thread, whatever the size.
TEST(AttentionWork, ScratchStaysSmall) {
  for (const ProblemSpec& spec :
       {ProblemSpec{.queries = 3000, .keys = 3000}, ProblemSpec{.queries = 40, .keys = 20000, .query_offset = 19960},
        ProblemSpec{.heads = 8, .queries = 150, .keys = 1500, .query_offset = 1350},
        ProblemSpec{.queries = 100, .keys = 100, .head_dim = 1024, .value_head_dim = 1024},
        ProblemSpec{.heads = 4, .queries = 24, .keys = 800, .head_dim = 1024, .value_head_dim = 1024}}) {
    Problem problem(spec);
    for (const kernel::Kernel* kernel : AvailableKernels()) {
      const auto work = MakeAttentionWork(problem.attention(), *kernel);
      Arena arena;
      while (const std::optional<Item> item = work->Next()) {
        work->Run(*item, arena, [] { return true; });
        work->Finish(*item);
      }
      EXPECT_LE(arena.capacity(), std::size_t{8} << 20) << kernel->name << " " << spec.Name();
    }
  }
}

// Problems of many units that take slots: packed keys alone, packed values too, partial results; and all ways at once.
std::vector<ProblemSpec> SlottedSpecs() {
  return {
      {.batch = 12, .heads = 4, .kv_heads = 2, .queries = 260, .keys = 260, .head_dim = 16, .value_head_dim = 64},
      {.batch = 6, .heads = 2, .kv_heads = 2, .queries = 300, .keys = 300, .dtype = tensor::DType::kF16},
      {.batch = 20, .queries = 1, .keys = 5000, .query_offset = 4999},
      {.batch = 5,
       .heads = 2,
       .kv_heads = 1,
       .queries = 700,
       .keys = 900,
       .query_offset = 150,
       .query_lengths = {700, 2, 20, 0, 300},
       .key_lengths = {900, 800, 170, 900, 700}},
  };
}

std::vector<std::byte> Results(const Problem& problem) {
  std::vector<std::byte> bytes = problem.output_bytes();
  const auto* lse = reinterpret_cast<const std::byte*>(problem.log_sum_exp().data());
  bytes.insert(bytes.end(), lse, lse + problem.log_sum_exp().size() * sizeof(float));
  return bytes;
}

// How many units are open at a time changes no bit, down to one.
TEST(AttentionWork, BitsDoNotDependOnTheWindow) {
  for (const ProblemSpec& spec : SlottedSpecs()) {
    Problem problem(spec);
    const kernel::Kernel& kernel = *AvailableKernels().front();
    std::vector<std::byte> expected;
    for (const std::int64_t window : {kWindowBytes, std::int64_t{1} << 18, std::int64_t{1}}) {
      const AttentionPlan plan(problem.attention(), kernel, window);
      if (window == 1) {
        EXPECT_EQ(plan.slots(), 1);
      } else if (window == kWindowBytes) {
        EXPECT_EQ(plan.slots(), plan.slotted_units());
        EXPECT_GT(plan.slots(), 1);
      }
      for (const int threads : {1, 2, 5}) {
        problem.Spoil();
        BoundedScheduler scheduler(threads);
        absl::Notification finished;
        scheduler.Submit(MakeAttentionWork(problem.attention(), plan), {}, [&](const Outcome& outcome) {
          EXPECT_TRUE(outcome.status.ok());
          finished.Notify();
        });
        Await(finished);
        if (expected.empty()) expected = Results(problem);
        EXPECT_TRUE(Results(problem) == expected) << spec.Name() << ", " << window << ", " << threads << " threads";
      }
    }
  }
}

// Given up at any time, with units in every phase, it touches nothing afterwards.
TEST(AttentionWork, CancelledWithOpenUnits) {
  Problem problem(SlottedSpecs()[0]);
  const AttentionPlan plan(problem.attention(), *AvailableKernels().front(), 1 << 17);
  EXPECT_LT(plan.slots(), plan.slotted_units());
  BoundedScheduler scheduler(4);
  int cancelled = 0;
  for (int i = 0; i < 60; ++i) {
    SubmitOptions options;
    absl::Notification finished;
    scheduler.Submit(MakeAttentionWork(problem.attention(), plan), options, [&](const Outcome& outcome) {
      EXPECT_TRUE(outcome.status.ok() || absl::IsCancelled(outcome.status));
      if (!outcome.status.ok()) ++cancelled;
      finished.Notify();
    });
    absl::SleepFor(absl::Microseconds(50 * i));
    options.cancel.Cancel();
    Await(finished);
  }
  EXPECT_GT(cancelled, 0);
}

// Cut in the middle of a tile of many keys, it goes on with the same bits; and it can be given up there.
TEST(AttentionWork, LongTilesPause) {
  Problem problem({.queries = 288, .keys = 9000, .head_dim = 64, .mask = kernel::Mask::kNone});
  const kernel::Kernel& kernel = *AvailableKernels().front();
  kernel::RunAttention(problem.attention(), kernel, 2);
  const std::vector<std::byte> expected = Results(problem);
  problem.Spoil();
  const auto work = MakeAttentionWork(problem.attention(), kernel);
  Arena arena;
  int pauses = 0;
  while (const std::optional<Item> item = work->Next()) {
    work->Run(*item, arena, [&pauses] { return ++pauses > 0; });
    work->Finish(*item);
  }
  EXPECT_TRUE(Results(problem) == expected);
  EXPECT_GE(pauses, 3) << "a pause in each of the tiles";

  problem.Spoil();
  const std::vector<std::byte> spoilt = Results(problem);
  const auto given_up = MakeAttentionWork(problem.attention(), kernel);
  while (const std::optional<Item> item = given_up->Next()) {
    given_up->Run(*item, arena, [] { return false; });
    given_up->Finish(*item);
  }
  EXPECT_TRUE(Results(problem) == spoilt) << "a tile that was given up was written";
}

// An item that costs much more than the time between two pauses pauses as often as it can, and when it is given up in
// any of them, it does not go on.
TEST(AttentionWork, LongItemsPauseAndEndThere) {
  struct Case {
    ProblemSpec spec;
    double between;  // two pauses, at most, in times of kPauseCost
  };
  const std::vector<Case> cases = {
      {{.queries = 288, .keys = 9000, .mask = kernel::Mask::kNone}, 2},  // tiles
      // One unit, which packs few keys at a time.
      {{.queries = 96, .keys = 1400, .head_dim = 8, .value_head_dim = 4096, .mask = kernel::Mask::kNone}, 5},
      // Rows that are cleared.
      {{.heads = 2, .queries = 30'000, .keys = 1, .head_dim = 1, .value_head_dim = 300, .query_lengths = {1}}, 2}};
  for (const auto& [spec, between] : cases) {
    Problem problem(spec);
    for (const kernel::Kernel* kernel : AvailableKernels()) {
      for (const int last : {0, 1, 2}) {  // which pause ends each item; 0: none
        const auto work = MakeAttentionWork(problem.attention(), *kernel);
        Arena arena;
        int long_items = 0;
        while (const std::optional<Item> item = work->Next()) {
          int pauses = 0;
          work->Run(*item, arena, [&] { return ++pauses != last; });
          work->Finish(*item);
          const double times = item->cost / kPauseCost;
          if (times > 3) ++long_items;
          if (last == 0) {
            EXPECT_GE(pauses, std::floor(times / between)) << spec.Name();
            EXPECT_LE(pauses, times + 1) << spec.Name();
          } else {
            EXPECT_LE(pauses, last) << spec.Name();
          }
        }
        EXPECT_GE(long_items, 1) << spec.Name();
      }
    }
  }
}

// Rows that see nothing are cleared a few at a time.
TEST(AttentionWork, ClearingManyRowsPauses) {
  Problem problem({.queries = 200'000, .keys = 1, .head_dim = 1, .value_head_dim = 1, .query_lengths = {1}});
  const auto work = MakeAttentionWork(problem.attention(), *AvailableKernels().front());
  Arena arena;
  int pauses = 0;
  while (const std::optional<Item> item = work->Next()) {
    work->Run(*item, arena, [&pauses] { return ++pauses > 0; });
    work->Finish(*item);
  }
  EXPECT_GE(pauses, 3);
}

}  // namespace
}  // namespace attnd::schedule
