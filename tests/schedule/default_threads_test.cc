#include <sched.h>

#include <cstddef>
#include <optional>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "schedule/default_threads.h"
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

TEST(DefaultThreadsTest, IsTheTightestLimitRoundedUp) {
  struct Case {
    int cpus;
    std::optional<double> limit;
    int threads;
  };
  for (const Case& c : std::vector<Case>{{8, std::nullopt, 8},
                                         {1, std::nullopt, 1},
                                         {0, std::nullopt, 1},
                                         {8, 2.0, 2},
                                         {8, 2.001, 3},
                                         {8, 1.5, 2},
                                         {8, 0.2, 1},
                                         {8, 7.5, 8},
                                         {8, 8.0, 8},
                                         {8, 64.0, 8},
                                         {8, 1e300, 8}}) {
    EXPECT_EQ(ThreadsFor(c.cpus, c.limit), c.threads) << c.cpus << " CPUs, limit " << c.limit.value_or(-1);
  }
}

}  // namespace
}  // namespace attnd::schedule
