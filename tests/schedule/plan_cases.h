// Attention problems for tests of how they are cut: one for each way and each kind of raggedness.
#pragma once

#include <cstdint>
#include <vector>

#include "../kernel/problem.h"
#include "schedule/attention_plan.h"

namespace attnd::schedule {

using kernel::ProblemSpec;

struct PlanCase {
  const char* name;
  ProblemSpec spec;
  Way way;              // of the first unit
  bool split = false;   // the first unit is split
  bool packed = false;  // kShared: values cannot stay in place
};

// Every other key from `first` to `last` - 1, and these two.
inline std::vector<bool> BitsBetween(std::int64_t batch, std::int64_t keys, std::int64_t first, std::int64_t last) {
  std::vector<bool> bits;
  for (std::int64_t j = 0; j < batch * keys; ++j) {
    const std::int64_t key = j % keys;
    bits.push_back(key >= first && key < last && ((key - first) % 2 == 0 || key == last - 1));
  }
  return bits;
}

inline std::vector<PlanCase> PlanCases() {
  return {
      {"one row", {.queries = 1, .keys = 1}, Way::kDirect},
      {"no visible key", {.queries = 5, .keys = 5, .query_offset = -9}, Way::kNothing},
      {"no query", {.queries = 5, .keys = 5, .query_lengths = {0}}, Way::kNothing},
      {"no key", {.queries = 5, .keys = 5, .key_lengths = {0}}, Way::kNothing},
      {"short decode",
       {.batch = 3, .heads = 4, .kv_heads = 2, .queries = 1, .keys = 100, .query_offset = 99},
       Way::kDirect},
      {"decode",
       {.batch = 2, .heads = 8, .kv_heads = 2, .queries = 1, .keys = 9000, .query_offset = 8999},
       Way::kDirect,
       true},
      {"many short", {.batch = 16, .heads = 8, .kv_heads = 8, .queries = 32, .keys = 32}, Way::kLocal},
      {"chunk", {.queries = 48, .keys = 9000, .query_offset = 8952}, Way::kLocal, true},
      {"chunk of grouped heads",
       {.heads = 4, .kv_heads = 2, .queries = 40, .keys = 5000, .query_offset = 4960},
       Way::kLocal,
       true},
      {"long", {.heads = 2, .kv_heads = 2, .queries = 1000, .keys = 1000}, Way::kShared},
      {"grouped", {.heads = 6, .kv_heads = 2, .queries = 500, .keys = 700, .query_offset = 200}, Way::kShared},
      {"unmasked", {.heads = 2, .queries = 500, .keys = 700, .mask = kernel::Mask::kNone}, Way::kShared},
      {"half precision", {.queries = 900, .keys = 900, .dtype = tensor::DType::kF16}, Way::kShared, false, true},
      {"ragged",
       {.batch = 3, .queries = 600, .keys = 600, .query_lengths = {600, 0, 550}, .key_lengths = {600, 600, 590}},
       Way::kShared},
      {"ragged, all ways",
       {.batch = 5,
        .heads = 2,
        .kv_heads = 1,
        .queries = 700,
        .keys = 900,
        .query_offset = 150,
        .query_lengths = {700, 2, 20, 0, 300},
        .key_lengths = {900, 800, 170, 900, 0}},
       Way::kShared},
      {"starts, decode",
       {.heads = 2, .kv_heads = 2, .queries = 1, .keys = 9000, .query_offset = 8999, .key_starts = {4321}},
       Way::kDirect,
       true},
      {"starts, chunk", {.queries = 48, .keys = 9000, .query_offset = 8952, .key_starts = {777}}, Way::kLocal, true},
      {"starts, long",
       {.batch = 4,
        .queries = 900,
        .keys = 900,
        .query_lengths = {900, 900, 900, 700},
        .key_lengths = {900, 600, 900, 900},
        .query_offsets = {0, 300, -450, 2},
        .key_starts = {100, 601, 400, 0}},
       Way::kShared},
      {"bits",
       {.batch = 3, .queries = 600, .keys = 600, .key_bits = BitsBetween(3, 600, 123, 555)},
       Way::kShared,
       false,
       true},
      {"window, long", {.queries = 900, .keys = 900, .left = 300}, Way::kShared},
      {"window on both sides, long",
       {.heads = 2, .kv_heads = 2, .queries = 900, .keys = 900, .mask = kernel::Mask::kNone, .left = 100, .right = 200},
       Way::kShared},
      {"window, decode", {.queries = 1, .keys = 9000, .query_offset = 8999, .left = 127}, Way::kDirect},
      {"window, chunk", {.queries = 48, .keys = 9000, .query_offset = 8952, .left = 4000}, Way::kLocal, true},
      {"window that sees nothing", {.queries = 48, .keys = 90, .query_offset = 500, .left = 100}, Way::kNothing},
      {"window of few", {.queries = 1000, .keys = 1000, .left = 5}, Way::kLocal},
      {"prefix", {.batch = 3, .queries = 700, .keys = 700, .prefix_lengths = {0, 300, 700}}, Way::kShared},
      {"prefix in a window",
       {.batch = 2, .queries = 700, .keys = 700, .left = 400, .right = 50, .prefix_lengths = {100, 600}},
       Way::kShared},
      {"no bit", {.queries = 60, .keys = 600, .key_bits = BitsBetween(1, 600, 0, 0)}, Way::kNothing},
  };
}

}  // namespace attnd::schedule
