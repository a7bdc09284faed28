#include "heap/heap.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "heap/trimmer.h"
#include "memory/huge_pages.h"

namespace attnd::heap {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

// Bytes of this process's own memory that are resident.
std::size_t ResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::stoul(line.substr(8)) * 1024;
  }
  ADD_FAILURE() << "no RssAnon in /proc/self/status";
  return 0;
}

// Allocates and touches `mebibytes` of memory as gRPC does, in blocks of 64 KiB, and frees it.
void AllocateAndFree(std::size_t mebibytes) {
  std::vector<std::unique_ptr<std::byte[]>> blocks(mebibytes * 16);
  for (auto& block : blocks) {
    block = std::make_unique_for_overwrite<std::byte[]>(kMebibyte / 16);
    std::memset(block.get(), 1, kMebibyte / 16);
  }
}

class HeapTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { Configure(); }
  void SetUp() override { GiveBack(0); }
};

TEST_F(HeapTest, IsInForce) {
  EXPECT_TRUE(IsInForce());
  EXPECT_TRUE(Name().starts_with("tcmalloc ")) << Name();
}

TEST_F(HeapTest, LiesOnHugePages) {
  if (!memory::SystemHasHugePages()) GTEST_SKIP() << "the system's mode is " << memory::HugePageMode();
  EXPECT_GE(memory::HugeFractionOfHeap(64 * kMebibyte), 0.9);
}

TEST_F(HeapTest, KeepsFreedMemoryUntilItIsGivenBack) {
  const std::size_t before = ResidentBytes();
  AllocateAndFree(200);
  EXPECT_GE(ResidentBytes(), before + 180 * kMebibyte);
  EXPECT_GE(GetUsage().kept, 180 * kMebibyte);
  GiveBack(100 * kMebibyte);
  EXPECT_GE(ResidentBytes(), before + 80 * kMebibyte);
  EXPECT_LE(ResidentBytes(), before + 140 * kMebibyte);
  GiveBack(0);
  EXPECT_LE(ResidentBytes(), before + 40 * kMebibyte);
}

TEST_F(HeapTest, CountsWhatIsInUse) {
  const std::size_t before = GetUsage().in_use;
  // volatile: an allocation that nothing uses may be left out.
  std::byte* volatile block = new std::byte[10 * kMebibyte];
  EXPECT_GE(GetUsage().in_use, before + 10 * kMebibyte);
  delete[] block;
}

TEST_F(HeapTest, RefusesWhatNoMachineHas) {
  EXPECT_EQ(new (std::nothrow) std::byte[std::size_t{1} << 50], nullptr);
  AllocateAndFree(1);
}

TEST_F(HeapTest, TrimmerGivesBackWhatCallsNoLongerNeed) {
  const std::size_t before = ResidentBytes();
  AllocateAndFree(200);
  absl::Notification ended;
  std::atomic<int> intervals{0};
  std::atomic<std::int64_t> peak{static_cast<std::int64_t>(200 * kMebibyte)};
  const auto take_peak = [&] {
    ++intervals;
    return peak.load();
  };
  auto trimmer = std::make_unique<Trimmer>(take_peak, absl::Milliseconds(5));
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (intervals < 3 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_GE(ResidentBytes(), before + 180 * kMebibyte) << "given back although calls need it";
  peak = 0;
  while (ResidentBytes() > before + 40 * kMebibyte && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_LE(ResidentBytes(), before + 40 * kMebibyte);
  std::thread end([&] {
    trimmer.reset();
    ended.Notify();
  });
  if (!ended.WaitForNotificationWithTimeout(absl::Seconds(20)))
    GTEST_LOG_(FATAL) << "the trimmer's thread does not end";
  end.join();
}

}  // namespace
}  // namespace attnd::heap
