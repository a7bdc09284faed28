#include "server/serving/descriptors.h"

#include <sys/resource.h>

#include <cstdint>
#include <utility>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

class DescriptorsTest : public testing::Test {
 protected:
  DescriptorsTest() { EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0); }
  ~DescriptorsTest() override { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

  void Lower(rlim_t descriptors) {
    rlimit lower = before_;
    lower.rlim_cur = descriptors;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  }

  rlimit before_{};
};

TEST_F(DescriptorsTest, ConnectionsLeaveDescriptorsForOthers) {
  const std::pair<rlim_t, std::int64_t> cases[] = {{64, 24}, {512, 360}, {20, 1}};
  for (const auto& [descriptors, expected] : cases) {
    if (descriptors > before_.rlim_max) continue;
    Lower(descriptors);
    EXPECT_EQ(ConnectionsForDescriptors(), expected);
  }
}

TEST_F(DescriptorsTest, AllThatMayBeHadAreTaken) {
  Lower(64);
  TakeAllDescriptors();
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, before_.rlim_max);
  EXPECT_EQ(limit.rlim_max, before_.rlim_max);
}

}  // namespace
}  // namespace attnd::server
