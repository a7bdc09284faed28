// The list of writes. That stalled calls end is tested where there are calls: attention/stream_test.cc,
// e2e/stall_test.cc.

#include "server/rpc/stall_watch.h"

#include <atomic>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

// Looks all the time, and finds nothing that is due: these writes have no call that it could end.
constexpr StallLimit kLooksOften = {.patience = absl::Milliseconds(20), .bytes_per_second = 1};
constexpr std::int64_t kYear = std::int64_t{365} * 24 * 3600;

TEST(StallWatchTest, WithoutPatienceNothingIsWatched) {
  Counters counters;
  StallWatch watch({}, counters, [](const std::string&) { FAIL(); });
  EXPECT_FALSE(watch.watches());
  StallWatch::Transfer write;
  watch.Begin(write, nullptr, 1);
  watch.End(write);
  watch.End(write);
}

TEST(StallWatchTest, WritesBeginAndEndInAnyOrder) {
  Counters counters;
  StallWatch watch(kLooksOften, counters, [](const std::string&) { FAIL(); });
  EXPECT_TRUE(watch.watches());
  std::vector<StallWatch::Transfer> writes(7);
  for (const std::vector<std::size_t>& order :
       {std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, {3, 0, 6, 2, 4, 1, 5}}) {
    for (StallWatch::Transfer& write : writes) watch.Begin(write, nullptr, kYear);
    for (const std::size_t i : order) watch.End(writes[i]);
    for (StallWatch::Transfer& write : writes) watch.End(write);  // again: nothing happens
  }
  EXPECT_EQ(counters.stalled_writes.load(), 0);
}

TEST(StallWatchTest, ManyThreadsBeginAndEnd) {
  Counters counters;
  StallWatch watch(kLooksOften, counters, [](const std::string&) { FAIL(); });
  std::vector<std::thread> threads;
  std::deque<StallWatch::Transfer> handed_over(8);
  for (std::size_t t = 0; t < handed_over.size(); ++t) {
    threads.emplace_back([&watch, &handed_over, t] {
      std::vector<StallWatch::Transfer> own(5);
      for (int i = 0; i < 2000; ++i) {
        for (StallWatch::Transfer& write : own) watch.Begin(write, nullptr, kYear);
        for (StallWatch::Transfer& write : own) watch.End(write);
      }
      watch.Begin(handed_over[t], nullptr, kYear);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (StallWatch::Transfer& write : handed_over) watch.End(write);  // by another thread
  EXPECT_EQ(counters.stalled_writes.load(), 0);
}

}  // namespace
}  // namespace attnd::server
