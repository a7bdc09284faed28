#include "schedule/attention_work.h"

#include <set>
#include <vector>

#include "../kernel/problem.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "schedule/arena.h"

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

TEST(AttentionWork, HandsOutEachItemOnceInAnyOrder) {
  for (const Case& c : Cases()) {
    Problem problem(c.spec);
    const kernel::Expected expected = kernel::Expect(problem);
    for (const bool last_first : {false, true}) {
      problem.Spoil();
      const auto work = MakeAttentionWork(problem.attention(), *AvailableKernels().front());
      ASSERT_NE(work, nullptr);
      Arena arena;
      std::vector<Item> ready(work->initial_items().begin(), work->initial_items().end());
      std::set<std::int64_t> seen;
      for (const Item& item : ready) seen.insert(item.id);
      std::int64_t run = 0;
      while (!ready.empty()) {
        const auto next = last_first ? ready.end() - 1 : ready.begin();
        const Item item = *next;
        ready.erase(next);
        work->Run(item.id, arena, [&](Item unlocked) {
          EXPECT_TRUE(seen.insert(unlocked.id).second) << c.name << ": item " << unlocked.id << " again";
          EXPECT_GE(unlocked.cost, 0);
          ready.push_back(unlocked);
        });
        ++run;
      }
      EXPECT_EQ(run, work->item_count()) << c.name;
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
      std::vector<Item> ready(work->initial_items().begin(), work->initial_items().end());
      while (!ready.empty()) {
        const Item item = ready.back();
        ready.pop_back();
        work->Run(item.id, arena, [&](Item unlocked) { ready.push_back(unlocked); });
      }
      EXPECT_LE(arena.capacity(), std::size_t{8} << 20) << kernel->name << " " << spec.Name();
    }
  }
}

}  // namespace
}  // namespace attnd::schedule
