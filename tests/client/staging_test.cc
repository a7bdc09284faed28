#include "client/src/staging.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::client {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

// No server is needed to make regions.
class StagingPoolTest : public testing::Test {
 protected:
  StagingPool::Block Get(std::size_t size) {
    std::optional<StagingPool::Block> block = pool_.Get(size);
    EXPECT_TRUE(block.has_value());
    return *std::move(block);
  }

  absl::Time now_ = absl::UnixEpoch();
  StagingPool pool_{std::make_shared<SharedMemory>("no such socket"), [this] { return now_; }};
};

TEST_F(StagingPoolTest, TakesTheSmallestThatFits) {
  StagingPool::Block large = Get(3 * kMebibyte), small = Get(2 * kMebibyte);
  void* const at = small.data.get();
  pool_.Put(std::move(large));
  pool_.Put(std::move(small));
  EXPECT_EQ(Get(2 * kMebibyte - 1).data.get(), at);
}

TEST_F(StagingPoolTest, DoesNotWasteALargeRegionOnASmallCall) {
  pool_.Put(Get(8 * kMebibyte));
  EXPECT_EQ(Get(3 * kMebibyte).size, 3 * kMebibyte);
  EXPECT_EQ(pool_.idle_bytes(), 8 * kMebibyte);
}

TEST_F(StagingPoolTest, SizesThatAreNoLongerUsedGo) {
  pool_.Put(Get(8 * kMebibyte));
  now_ += StagingPool::kMaxIdleTime / 2;
  pool_.Put(Get(kMebibyte));
  EXPECT_EQ(pool_.idle_bytes(), 9 * kMebibyte);
  now_ += StagingPool::kMaxIdleTime / 2 + absl::Milliseconds(1);
  pool_.Put(Get(kMebibyte));
  EXPECT_EQ(pool_.idle_bytes(), kMebibyte);
}

TEST_F(StagingPoolTest, KeepsTheLastUsedUpToItsBound) {
  std::vector<StagingPool::Block> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(Get(StagingPool::kMaxIdleBytes / 2));
  void* const last = blocks[2].data.get();
  for (StagingPool::Block& block : blocks) pool_.Put(std::move(block));
  EXPECT_EQ(pool_.idle_bytes(), StagingPool::kMaxIdleBytes);
  EXPECT_EQ(Get(StagingPool::kMaxIdleBytes / 2).data.get(), last);
}

TEST_F(StagingPoolTest, KeepsNothingThatIsLargerThanItsBound) {
  pool_.Put(Get(kMebibyte));
  pool_.Put({std::make_shared<int>(), StagingPool::kMaxIdleBytes + 1});
  EXPECT_EQ(pool_.idle_bytes(), kMebibyte);
}

}  // namespace
}  // namespace attnd::client
