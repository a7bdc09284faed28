#include "server/serving/settings.h"

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernel/registry.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;

class KernelSettingTest : public testing::Test {
 protected:
  void SetUp() override { unsetenv("ATTND_KERNEL"); }
  void TearDown() override { unsetenv("ATTND_KERNEL"); }
  const kernel::Kernel& best_ = *kernel::AvailableKernels().front();
  const kernel::Kernel& plainest_ = *kernel::AvailableKernels().back();
  const std::string plainest_name_{kernel::NameOf(plainest_)};
};

TEST_F(KernelSettingTest, BestIsInForceByItself) {
  EXPECT_EQ(KernelSetting(best_, "").state(), v1::SETTING_STATE_IN_FORCE);
  EXPECT_EQ(KernelSetting(best_, "").detail(), kernel::NameOf(best_));
}

TEST_F(KernelSettingTest, AnotherIsInForceOnlyIfItWasAskedFor) {
  if (kernel::AvailableKernels().size() < 2) GTEST_SKIP() << "this CPU runs one kernel";
  EXPECT_EQ(KernelSetting(plainest_, "").state(), v1::SETTING_STATE_NOT_IN_FORCE);
  EXPECT_EQ(KernelSetting(best_, plainest_name_).state(), v1::SETTING_STATE_NOT_IN_FORCE);
  EXPECT_EQ(KernelSetting(plainest_, plainest_name_).state(), v1::SETTING_STATE_IN_FORCE);
  EXPECT_THAT(KernelSetting(plainest_, plainest_name_).detail(), HasSubstr(std::string(kernel::NameOf(best_))));
  setenv("ATTND_KERNEL", plainest_name_.c_str(), 1);
  EXPECT_EQ(KernelSetting(plainest_, "").state(), v1::SETTING_STATE_IN_FORCE);
}

TEST(SettingsTest, InWordsNamesStateAndDetail) {
  EXPECT_EQ(InWords(ObservedSetting("a", true, "d")), "a: in force (d)");
  EXPECT_EQ(InWords(ObservedSetting("a", false, "d")), "a: not in force (d)");
  EXPECT_EQ(InWords(RequestedSetting("a", "d")), "a: requested (d)");
  EXPECT_EQ(InWords(v1::Setting()), ": unknown ()");
}

}  // namespace
}  // namespace attnd::server
