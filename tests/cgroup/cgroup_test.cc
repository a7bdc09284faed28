#include "cgroup/cgroup.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace attnd::cgroup {
namespace {

using Files = std::map<std::string, std::string>;  // below the folder that stands for /sys/fs/cgroup

std::filesystem::path Tree(const std::string& name, const Files& files) {
  const std::filesystem::path root = std::filesystem::path(testing::TempDir()) / name;
  std::filesystem::remove_all(root);
  std::filesystem::create_directories(root);
  for (const auto& [path, text] : files) {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  return root;
}

struct Case {
  std::string name;
  std::string proc_self_cgroup;
  std::map<std::string, std::string> files;  // below the cgroup root
  std::optional<double> limit;
};

class CpuLimitTest : public ::testing::TestWithParam<Case> {};

TEST_P(CpuLimitTest, FindsTheTightestLimit) {
  const std::filesystem::path root = Tree("cpu_limit_" + GetParam().name, GetParam().files);
  EXPECT_EQ(CpuLimit({GetParam().proc_self_cgroup, root.string()}), GetParam().limit);
}

INSTANTIATE_TEST_SUITE_P(
    All, CpuLimitTest,
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
        Case{"v1_other_controllers",
             "5:cpuset,cpuacct:/x\n",
             {{"cpuset,cpuacct/x/cpu.cfs_quota_us", "100000\n"}, {"cpuset,cpuacct/x/cpu.cfs_period_us", "100000\n"}},
             std::nullopt},
        Case{"v1_parent_is_tighter",
             "4:cpu,cpuacct:/x/y\n",
             {{"cpu,cpuacct/x/y/cpu.cfs_quota_us", "-1\n"},
              {"cpu,cpuacct/x/y/cpu.cfs_period_us", "100000\n"},
              {"cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n"},
              {"cpu,cpuacct/x/cpu.cfs_period_us", "200000\n"}},
             1.5},
        Case{"v1_without_period", "4:cpu:/x\n", {{"cpu/x/cpu.cfs_quota_us", "100000\n"}}, std::nullopt},
        Case{"v2_zero_quota", "0::/\n", {{"cpu.max", "0 100000\n"}}, std::nullopt},
        Case{"v2_without_period", "0::/\n", {{"cpu.max", "100000\n"}}, std::nullopt},
        Case{"v1_and_v2",
             "4:cpu:/x\n0::/x\n",
             {{"cpu/x/cpu.cfs_quota_us", "200000\n"},
              {"cpu/x/cpu.cfs_period_us", "100000\n"},
              {"x/cpu.max", "300000 100000\n"}},
             2.0},
        Case{"malformed_line", "nonsense\n0::/\n", {{"cpu.max", "100000 100000\n"}}, 1.0}),
    [](const auto& info) { return info.param.name; });

struct MemoryCase {
  std::string name;
  std::string proc_self_cgroup;
  Files files;
  std::optional<std::int64_t> limit;
};

class MemoryLimitTest : public ::testing::TestWithParam<MemoryCase> {};

TEST_P(MemoryLimitTest, FindsTheTightestLimit) {
  const std::filesystem::path root = Tree("memory_limit_" + GetParam().name, GetParam().files);
  EXPECT_EQ(MemoryLimit({GetParam().proc_self_cgroup, root.string()}), GetParam().limit);
}

INSTANTIATE_TEST_SUITE_P(
    All, MemoryLimitTest,
    ::testing::Values(
        MemoryCase{"none", "0::/\n", {}, std::nullopt},
        MemoryCase{"v2_max", "0::/a\n", {{"a/memory.max", "max\n"}}, std::nullopt},
        MemoryCase{"v2_root_of_a_container", "0::/\n", {{"memory.max", "67108864\n"}}, 67108864},
        MemoryCase{"v2_parent_is_tighter",
                   "0::/pods/a\n",
                   {{"pods/a/memory.max", "max\n"}, {"pods/memory.max", "1000000\n"}},
                   1000000},
        MemoryCase{"v2_child_is_tighter",
                   "0::/pods/a/b\n",
                   {{"pods/a/b/memory.max", "500\n"}, {"pods/memory.max", "1000000\n"}},
                   500},
        MemoryCase{"v2_nothing", "0::/\n", {{"memory.max", "0\n"}}, 0},
        MemoryCase{"v2_negative", "0::/\n", {{"memory.max", "-1\n"}}, std::nullopt},
        MemoryCase{"v2_most", "0::/\n", {{"memory.max", "4611686018427387903\n"}}, (std::int64_t{1} << 62) - 1},
        MemoryCase{"v2_beyond_most", "0::/\n", {{"memory.max", "4611686018427387904\n"}}, std::nullopt},
        MemoryCase{"v1_of_another_controller",
                   "5:memory_other:/x\n",
                   {{"memory_other/x/memory.limit_in_bytes", "4096\n"}},
                   std::nullopt},
        MemoryCase{
            "v1_among_controllers", "5:cpu,memory:/x\n", {{"cpu,memory/x/memory.limit_in_bytes", "8192\n"}}, 8192},
        MemoryCase{"v2_rubbish", "0::/\n", {{"memory.max", "much\n"}}, std::nullopt},
        MemoryCase{"v1",
                   "5:memory:/docker/x\n4:cpu,cpuacct:/y\n",
                   {{"memory/docker/x/memory.limit_in_bytes", "134217728\n"},
                    {"memory/memory.limit_in_bytes", "9223372036854771712\n"}},
                   134217728},
        MemoryCase{
            "v1_unlimited", "5:memory:/\n", {{"memory/memory.limit_in_bytes", "9223372036854771712\n"}}, std::nullopt},
        MemoryCase{"v1_path_not_shown", "5:memory:/docker/x\n", {{"memory/memory.limit_in_bytes", "4096\n"}}, 4096},
        MemoryCase{"v1_and_v2",
                   "5:memory:/a\n0::/a\n",
                   {{"memory/a/memory.limit_in_bytes", "4096\n"}, {"a/memory.max", "2048\n"}},
                   2048}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnd::cgroup
