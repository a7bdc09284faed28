#include "pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace attnd::bench {
namespace {

using ::testing::HasSubstr;

PageBuffer Touched(std::size_t bytes, PageKind kind) {
  PageBuffer buffer(bytes, kind);
  std::memset(buffer.data(), 1, bytes);
  return buffer;
}

TEST(PageKindTest, HasTwoNames) {
  EXPECT_EQ(*ParsePageKind("huge"), PageKind::kHuge);
  EXPECT_EQ(*ParsePageKind("small"), PageKind::kSmall);
  EXPECT_THAT(ParsePageKind("large").status().message(), HasSubstr("--pages: expected huge or small, got large"));
}

TEST(PageBufferTest, BeginsOnAHugePageAndIsZeroed) {
  for (const PageKind kind : {PageKind::kHuge, PageKind::kSmall}) {
    for (const std::size_t bytes : {std::size_t{1}, kHugePageBytes - 1, kHugePageBytes, 5 * kHugePageBytes + 3}) {
      const PageBuffer buffer(bytes, kind);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % kHugePageBytes, 0U);
      ASSERT_EQ(buffer.size(), bytes);
      EXPECT_EQ(buffer.data()[0], std::byte{0});
      EXPECT_EQ(buffer.data()[bytes - 1], std::byte{0});
    }
  }
}

TEST(PageBufferTest, MovesWithItsMemory) {
  PageBuffer from(100, PageKind::kSmall);
  from.data()[99] = std::byte{7};
  const std::byte* const data = from.data();
  PageBuffer to(std::move(from));
  EXPECT_EQ(to.data(), data);
  EXPECT_EQ(to.data()[99], std::byte{7});
  PageBuffer other(kHugePageBytes, PageKind::kHuge);
  other = std::move(to);
  EXPECT_EQ(other.data(), data);
  EXPECT_EQ(other.size(), 100U);
  EXPECT_TRUE(PageBuffer().empty());
}

TEST(PageBufferTest, HugeIsHuge) {
  if (!memory::SystemHasHugePages()) GTEST_SKIP() << "transparent huge pages are [never] here";
  for (const std::size_t bytes : {std::size_t{1000}, 8 * kHugePageBytes}) {
    const PageBuffer buffer = Touched(bytes, PageKind::kHuge);
    EXPECT_EQ(memory::HugeFraction(buffer.data(), buffer.size()), 1.0) << bytes;
  }
}

TEST(PageBufferTest, SmallIsSmallAlthoughTheBufferIsLarge) {
  const PageBuffer buffer = Touched(8 * kHugePageBytes, PageKind::kSmall);
  EXPECT_EQ(memory::HugeFraction(buffer.data(), buffer.size()), 0.0);
}

// Buffers that follow each other in memory must not be counted together.
TEST(PageBufferTest, CountsEachBufferByItself) {
  std::vector<PageBuffer> small;
  std::vector<PageBuffer> huge;
  for (int i = 0; i < 4; ++i) {
    small.push_back(Touched(2 * kHugePageBytes, PageKind::kSmall));
    huge.push_back(Touched(2 * kHugePageBytes, PageKind::kHuge));
  }
  const double expected = memory::SystemHasHugePages() ? 1.0 : 0.0;
  for (const PageBuffer& buffer : small) EXPECT_EQ(memory::HugeFraction(buffer.data(), buffer.size()), 0.0);
  for (const PageBuffer& buffer : huge) EXPECT_EQ(memory::HugeFraction(buffer.data(), buffer.size()), expected);
}

TEST(PageBufferTest, OfUntouchedMemoryIsZero) {
  const PageBuffer buffer(kHugePageBytes, PageKind::kHuge);
  EXPECT_EQ(memory::HugeFraction(buffer.data(), buffer.size()), 0.0);
}

}  // namespace
}  // namespace attnd::bench
