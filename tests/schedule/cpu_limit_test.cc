#include "schedule/cpu_limit.h"

#include <sched.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {
namespace {

using ::testing::Optional;

struct Case {
  std::string name;
  std::string proc_self_cgroup;
  std::map<std::string, std::string> files;  // below the cgroup root
  std::optional<double> limit;
};

class CgroupTest : public ::testing::TestWithParam<Case> {};

TEST_P(CgroupTest, FindsTheTightestLimit) {
  const std::filesystem::path root = std::filesystem::path(testing::TempDir()) / ("cgroup_" + GetParam().name);
  std::filesystem::remove_all(root);
  std::filesystem::create_directories(root);
  for (const auto& [path, text] : GetParam().files) {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  EXPECT_EQ(CgroupCpuLimit(GetParam().proc_self_cgroup, root.string()), GetParam().limit);
}

INSTANTIATE_TEST_SUITE_P(
    All, CgroupTest,
    ::testing::Values(
        Case{"none", "0::/\n", {}, std::nullopt}, Case{"v2_max", "0::/\n", {{"cpu.max", "max 100000\n"}}, std::nullopt},
        Case{"v2_root", "0::/\n", {{"cpu.max", "150000 100000\n"}}, 1.5},
        Case{"v2_parent_is_tighter",
             "0::/pods/a\n",
             {{"pods/a/cpu.max", "400000 100000\n"}, {"pods/cpu.max", "200000 100000\n"}},
             2.0},
        Case{"v2_child_is_tighter",
             "0::/pods/a\n",
             {{"pods/a/cpu.max", "50000 100000\n"}, {"pods/cpu.max", "200000 100000\n"}},
             0.5},
        Case{"v2_path_not_shown", "0::/host/only\n", {{"cpu.max", "300000 100000\n"}}, 3.0},
        Case{"v2_rubbish", "0::/\n", {{"cpu.max", "many few\n"}}, std::nullopt},
        Case{"v2_zero_period", "0::/\n", {{"cpu.max", "100000 0\n"}}, std::nullopt},
        Case{"v1",
             "5:memory:/x\n4:cpu,cpuacct:/x\n",
             {{"cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n"}, {"cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"}},
             2.5},
        Case{"v1_unlimited",
             "4:cpu,cpuacct:/x\n",
             {{"cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n"}, {"cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"}},
             std::nullopt},
        Case{"v1_mounted_as_cpu",
             "4:cpu,cpuacct:/x\n",
             {{"cpu/cpu.cfs_quota_us", "100000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}},
             1.0},
        Case{"malformed_line", "nonsense\n0::/\n", {{"cpu.max", "100000 100000\n"}}, 1.0}),
    [](const auto& info) { return info.param.name; });

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
