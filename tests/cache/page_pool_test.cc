#include "cache/page_pool.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "memory/huge_pages.h"

namespace attnd::cache {
namespace {

constexpr std::int64_t kHuge = memory::kHugePageBytes;

TEST(PagePool, GivesEachPageOnce) {
  for (const std::int64_t page_bytes : {std::int64_t{64}, std::int64_t{4096}, 3 * kHuge / 4}) {
    auto pool = PagePool::Create(page_bytes, 5);
    ASSERT_TRUE(pool.ok()) << pool.status();
    std::set<std::byte*> pages;
    for (int i = 0; i < 5; ++i) {
      std::byte* const page = (*pool)->Take();
      ASSERT_NE(page, nullptr);
      EXPECT_EQ(std::count(page, page + page_bytes, std::byte{0}), page_bytes);
      std::memset(page, 1 + i, static_cast<std::size_t>(page_bytes));
      pages.insert(page);
    }
    EXPECT_EQ(pages.size(), 5u);
    EXPECT_EQ((*pool)->Take(), nullptr);
    EXPECT_EQ((*pool)->used(), 5);
    int number = 0;
    for (std::byte* page : pages) {
      EXPECT_EQ(std::count(page, page + page_bytes, page[0]), page_bytes);
      (*pool)->RemoveReader(page);
      EXPECT_EQ((*pool)->used(), 4 - number++);
    }
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(pages.contains((*pool)->Take()));
    EXPECT_EQ((*pool)->Take(), nullptr);
  }
}

TEST(PagePool, APageIsFreeOnceItHasNeitherReaderNorKeeper) {
  auto pool = PagePool::Create(64, 2);
  ASSERT_TRUE(pool.ok());
  const std::byte* const page = (*pool)->Take();
  EXPECT_EQ((*pool)->readers(page), 1);
  (*pool)->AddReader(page);
  EXPECT_EQ((*pool)->readers(page), 2);
  (*pool)->AddKeeper(page, 7);
  (*pool)->AddKeeper(page, 5);
  EXPECT_EQ((*pool)->kept_rows(page), 7);
  (*pool)->RemoveReader(page);
  (*pool)->RemoveReader(page);
  EXPECT_EQ((*pool)->used(), 1);
  (*pool)->RemoveKeeper(page);
  EXPECT_EQ((*pool)->used(), 1);
  EXPECT_EQ((*pool)->kept_rows(page), 7);
  (*pool)->RemoveKeeper(page);
  EXPECT_EQ((*pool)->used(), 0);
  EXPECT_EQ((*pool)->Take(), page);
  EXPECT_EQ((*pool)->readers(page), 1);
  EXPECT_EQ((*pool)->kept_rows(page), 0);
}

// Address space for far more than the machine has costs nothing until it is written.
TEST(PagePool, LiesOnHugePages) {
  auto pool = PagePool::Create(kHuge / 4, std::int64_t{1} << 20);  // 512 GiB
  if (!pool.ok()) GTEST_SKIP() << "no address space: " << pool.status();
  std::vector<std::byte*> pages;
  for (int i = 0; i < 16; ++i) {
    pages.push_back((*pool)->Take());
    std::memset(pages.back(), 1, kHuge / 4);
  }
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pages[0]) % static_cast<std::uintptr_t>(kHuge), 0u);
  if (memory::SystemHasHugePages()) {
    EXPECT_GT(memory::HugeFraction(pages[0], 4 * kHuge), 0.9);
  }
}

TEST(PagePool, TooMuchIsRefused) {
  for (const std::int64_t pages : {std::int64_t{1} << 44, std::int64_t{1} << 54}) {
    EXPECT_EQ(PagePool::Create(4096, pages).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

}  // namespace
}  // namespace attnd::cache
