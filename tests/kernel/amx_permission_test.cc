#include "kernel/amx_permission.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "kernel/registry.h"
#include "platform/platform.h"

#if ATTND_X86_64 && ATTND_LINUX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace attnd::kernel {
namespace {

TEST(AmxPermission, IsTheSameForEveryCallAndThread) {
  const bool granted = RequestAmx();
  EXPECT_EQ(RequestAmx(), granted);
  bool elsewhere = !granted;
  std::thread([&] { elsewhere = RequestAmx(); }).join();
  EXPECT_EQ(elsewhere, granted);
}

TEST(AmxPermission, TheRegistryFollowsIt) {
  const auto& kernels = AvailableKernels();
  const bool offered = std::any_of(kernels.begin(), kernels.end(),
                                   [](const Kernel* kernel) { return NameOf(*kernel) == "x86-64-v4-amx"; });
  EXPECT_EQ(offered, RequestAmx());
}

#if ATTND_X86_64 && ATTND_LINUX
// Linux names the CPU's features, and says itself which registers it has granted.
TEST(AmxPermission, IsWhatLinuxSays) {
  const bool granted = RequestAmx();
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line) && !line.starts_with("flags")) {
  }
  bool has_bf16 = false;
  std::istringstream flags(line);
  for (std::string flag; flags >> flag;) has_bf16 = has_bf16 || flag == "amx_bf16";

  constexpr int kGetPermission = 0x1022;  // ARCH_GET_XCOMP_PERM
  unsigned long features = 0;
  const bool known = syscall(SYS_arch_prctl, kGetPermission, &features) == 0;
  const bool permitted = known && (features & 1ul << 18) != 0;  // TILEDATA
  EXPECT_EQ(granted, has_bf16 && permitted);
}
#else
TEST(AmxPermission, OtherMachinesHaveNoAmx) { EXPECT_FALSE(RequestAmx()); }
#endif

}  // namespace
}  // namespace attnd::kernel
