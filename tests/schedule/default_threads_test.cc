#include <sched.h>

#include <cstddef>
#include <thread>

#include "gtest/gtest.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {
namespace {

TEST(DefaultThreadsTest, FollowsTheAffinityMask) {
  // In a thread of its own, so that the mask of the other tests' thread stays.
  std::thread([] {
    cpu_set_t before, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&one);
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &before)) {
        CPU_SET(cpu, &one);
        break;
      }
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(DefaultThreads(), 1);
    ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
    EXPECT_GE(DefaultThreads(), 1);
    EXPECT_LE(DefaultThreads(), CPU_COUNT(&before));
  }).join();
}

}  // namespace
}  // namespace attnd::schedule
