// Changes of which any allocation fails: a rollback, for which there is no memory either, undoes them.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../support/nth_allocation.h"
#include "absl/strings/str_cat.h"
#include "cache/page_pool.h"
#include "cache/sequences.h"
#include "gtest/gtest.h"
#include "kernel/attention.h"
#include "kernel/reference.h"
#include "problem.h"
#include "tensor/dtype.h"

namespace attnd::cache {
namespace {

using tensor::DType;

constexpr std::int64_t kSequences = 3;
constexpr std::int64_t kDim = 4;
constexpr std::int64_t kRows = 300;

// Rows whose elements are all different, for one layer of one head.
class Rows {
 public:
  explicit Rows(float first) {
    std::vector<float> values(static_cast<std::size_t>(kSequences * kRows * kDim));
    for (float& value : values) value = first++;
    tensor_ = kernel::SegmentedTensor(values, DType::kF32, 0, 0);
  }
  kernel::TensorView view() const { return tensor_.View(kRows * kDim, kRows * kDim, kDim); }

 private:
  kernel::SegmentedTensor tensor_;
};

// All tokens of all sequences, and the number of pages.
struct Contents {
  std::vector<std::vector<double>> tokens;
  std::int64_t pages = 0;
};
Contents Of(const Sequences& sequences) {
  Contents contents;
  contents.pages = sequences.pages_in_use();
  std::vector<const std::byte* const*> lists;
  for (std::int64_t s = 0; s < kSequences; ++s) lists.push_back(sequences.PagesOf(s));
  const kernel::TensorView k = sequences.shape().Keys(0, lists.data()), v = sequences.shape().Values(0, lists.data());
  for (std::int64_t s = 0; s < kSequences; ++s) {
    std::vector<double>& tokens = contents.tokens.emplace_back();
    for (std::int64_t row = 0; row < sequences.length(0, s); ++row) {
      for (std::int64_t d = 0; d < kDim; ++d) {
        tokens.push_back(kernel::ElementAt(k, s, 0, row, d));
        tokens.push_back(kernel::ElementAt(v, s, 0, row, d));
      }
    }
  }
  return contents;
}

// What differs; empty if nothing does.
std::string Fault(const Sequences& sequences, const Contents& expected) {
  const Contents is = Of(sequences);
  // A sequence that was to write to a shared page may keep a copy.
  if (is.pages < expected.pages || is.pages > expected.pages + kSequences) return absl::StrCat(is.pages, " pages");
  for (std::size_t s = 0; s < expected.tokens.size(); ++s) {
    if (is.tokens[s].size() != expected.tokens[s].size()) return absl::StrCat("length of sequence ", s);
    for (std::size_t i = 0; i < expected.tokens[s].size(); ++i) {
      if (is.tokens[s][i] == expected.tokens[s][i]) continue;
      return absl::StrCat("sequence ", s, ", number ", i, ": ", is.tokens[s][i], ", expected ", expected.tokens[s][i]);
    }
  }
  return "";
}

TEST(SequencesWithoutMemory, ARollbackUndoesWhatHasFailed) {
  const Rows first(1), second(100'000);
  const kernel::TensorView rows = second.view();
  struct Change {
    const char* name;
    std::function<bool(Sequences&)> make;
  };
  const std::vector<Change> changes = {
      {"append",
       [&](Sequences& s) {
         return s.Append(0, {200, 1, 90}, rows, rows).ok();
       }},
      {"gather",
       [](Sequences& s) {
         return s.Gather({2, 2, 0}), true;
       }},
      {"truncate", [](Sequences& s) { return s.Truncate(0, 3), s.Truncate(1, 65), true; }},
      {"gather and append",
       [&](Sequences& s) {
         return s.Gather({0, 0, 0}), s.Append(0, {20, 30, 40}, rows, rows).ok();
       }},
      {"truncate and append",
       [&](Sequences& s) {
         return s.Truncate(0, 100), s.Append(0, {50, 0, 0}, rows, rows).ok();
       }},
  };
  for (const Change& change : changes) {
    for (std::int64_t number = 1;; ++number) {
      ASSERT_LT(number, 1000) << change.name;
      const std::string where = std::string(change.name) + ", allocation " + std::to_string(number);
      auto sequences = *Sequences::Create(*PageShape::Make({{{1, kDim, kDim}}}, DType::kF32), kSequences, 600);
      ASSERT_TRUE(sequences->Append(0, {150, 100, 40}, first.view(), first.view()).ok());
      sequences->Gather({0, 1, 1});
      sequences->Commit();
      const Contents before = Of(*sequences);
      test::FailNthAllocation(number, true);
      bool threw = false;
      try {
        change.make(*sequences);
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      test::FailNthAllocation(1, true);
      if (threw) sequences->Rollback();
      EXPECT_FALSE(test::StopFailingAllocations()) << where << ": the rollback allocates";
      if (!threw) break;
      ASSERT_EQ(Fault(*sequences, before), "") << where;
      ASSERT_TRUE(change.make(*sequences)) << where << ": again, with memory";
      sequences->Rollback();
      ASSERT_EQ(Fault(*sequences, before), "") << where;
      for (std::int64_t s = 0; s < kSequences; ++s) sequences->Truncate(s, 0);
      sequences->Commit();
      ASSERT_EQ(sequences->pages_in_use(), 0) << where;
    }
  }
}

TEST(PagePoolWithoutMemory, TakesNothing) {
  for (std::int64_t number = 1;; ++number) {
    ASSERT_LT(number, 1000);
    auto pool = PagePool::Create(64, 40);
    ASSERT_TRUE(pool.ok());
    bool threw = false;
    std::int64_t taken = 0;
    test::FailNthAllocation(number, true);
    try {
      for (; taken < 40; ++taken) static_cast<void>((*pool)->Take());
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    test::StopFailingAllocations();
    EXPECT_EQ((*pool)->used(), taken);
    for (; taken < 40; ++taken) EXPECT_NE((*pool)->Take(), nullptr);
    EXPECT_EQ((*pool)->Take(), nullptr);
    if (!threw) break;
  }
}

}  // namespace
}  // namespace attnd::cache
