#include "memory/huge_pages.h"

#include <sys/mman.h>

#include <cstring>

#include "gtest/gtest.h"

namespace attnd::memory {
namespace {

constexpr std::size_t kBytes = 4 * kHugePageBytes;

// A mapping of its own, with or without huge pages.
class Mapping {
 public:
  explicit Mapping(int advice)
      : data_(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    madvise(data_, kBytes, advice);
  }
  ~Mapping() { munmap(data_, kBytes); }
  void* data() const { return data_; }

 private:
  void* const data_;
};

TEST(HugePageModeTest, IsTheWordInBrackets) {
  EXPECT_EQ(HugePageMode("always [madvise] never"), "madvise");
  EXPECT_EQ(HugePageMode("[always] madvise never\n"), "always");
  EXPECT_EQ(HugePageMode("always madvise [never]"), "never");
  for (const char* text : {"", "always", "[", "]", "][", "[always"}) EXPECT_EQ(HugePageMode(text), "") << text;
}

TEST(HugeFractionTest, TellsHugeFromSmall) {
  const Mapping small(MADV_NOHUGEPAGE);
  std::memset(small.data(), 1, kBytes);
  EXPECT_EQ(HugeFraction(small.data(), kBytes), 0.0);
  if (!SystemHasHugePages()) GTEST_SKIP() << "the system's mode is " << HugePageMode();
  const Mapping huge(MADV_HUGEPAGE);
  std::memset(huge.data(), 1, kBytes);
  EXPECT_GE(HugeFraction(huge.data(), kBytes), 0.5);  // its ends are no whole huge pages
}

// Neighbours of the memory in question count neither as resident nor as huge.
TEST(HugeFractionTest, OfOneOfThreeNeighbours) {
  constexpr std::size_t kPart = 2 * kBytes;  // has whole huge pages wherever it begins
  auto* const all =
      static_cast<std::byte*>(mmap(nullptr, 3 * kPart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(all, MAP_FAILED);
  for (const std::size_t part : {0u, 1u, 2u})
    madvise(all + part * kPart, kPart, part == 1 ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
  std::memset(all, 1, 3 * kPart);
  EXPECT_EQ(HugeFraction(all + kPart, kPart), 0.0);
  if (SystemHasHugePages()) {
    EXPECT_GE(HugeFraction(all, kPart), 0.5);
    EXPECT_GE(HugeFraction(all + 2 * kPart, kPart), 0.5);
  }
  munmap(all, 3 * kPart);
}

TEST(HugeFractionTest, OfUntouchedMemoryIsZero) {
  const Mapping mapping(MADV_HUGEPAGE);
  EXPECT_EQ(HugeFraction(mapping.data(), kBytes), 0.0);
}

TEST(HugeFractionTest, OfMoreHeapThanThereIsIsZero) { EXPECT_EQ(HugeFractionOfHeap(std::size_t{1} << 50), 0.0); }

}  // namespace
}  // namespace attnd::memory
