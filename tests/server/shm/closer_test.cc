#include "server/shm/closer.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstddef>
#include <memory>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::server {
namespace {

// Both ends of a pipe.
std::pair<shm::UniqueFd, shm::UniqueFd> Pipe() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  return {shm::UniqueFd(ends[0]), shm::UniqueFd(ends[1])};
}

// Whether a pipe's writer is closed, within some time.
bool IsClosed(const shm::UniqueFd& reader) {
  pollfd wanted{reader.get(), POLLIN, 0};
  char byte = 0;
  return poll(&wanted, 1, 20'000) > 0 && read(reader.get(), &byte, 1) == 0;
}

// What waits when it goes, as the close of a file may.
class Slow {
 public:
  explicit Slow(absl::Notification& go_on, absl::Notification* goes = nullptr) : go_on_(go_on), goes_(goes) {}
  ~Slow() {
    if (goes_ != nullptr) goes_->Notify();
    EXPECT_TRUE(go_on_.WaitForNotificationWithTimeout(absl::Seconds(20)));
  }

 private:
  absl::Notification& go_on_;
  absl::Notification* const goes_;
};

TEST(CloserTest, ClosesAndReleasesWhatItIsGiven) {
  auto [reader, writer] = Pipe();
  const auto held = std::make_shared<const int>(1);
  Closer closer;
  closer.Close(shm::UniqueFd());
  closer.Release(nullptr);
  closer.Release(held);
  closer.Close(std::move(writer));
  EXPECT_TRUE(IsClosed(reader)) << "the writer is still open";
  EXPECT_EQ(held.use_count(), 1);
}

TEST(CloserTest, KeepsNobodyWaitingAndSaysWhatWaits) {
  absl::Notification go_on;
  auto [reader, writer] = Pipe();
  {
    const absl::Time begin = absl::Now();
    Closer closer;
    closer.Release(std::make_shared<const Slow>(go_on));
    EXPECT_EQ(closer.waiting(), 0U) << "of descriptors";
    closer.Close(std::move(writer));
    EXPECT_EQ(closer.waiting(), 1U);
    EXPECT_LT(absl::Now() - begin, absl::Milliseconds(900));
  }
  // It went without what it could not close, which its thread closes in the end.
  go_on.Notify();
  EXPECT_TRUE(IsClosed(reader));
}

// Only so many may wait: each that is closed makes room for another.
TEST(CloserTest, WhatIsClosedWaitsNoMore) {
  Closer closer;
  for (const int count : {1, 3}) {
    absl::Notification go_on;
    closer.Release(std::make_shared<const Slow>(go_on));
    for (int i = 0; i < count; ++i) closer.Close(Pipe().first);
    EXPECT_EQ(closer.waiting(), static_cast<std::size_t>(count));
    go_on.Notify();
    ASSERT_TRUE(test::Becomes([&] { return closer.waiting() == 0; })) << closer.waiting();
  }
}

TEST(CloserTest, ADrainWaitsUntilTheLastOneIsGone) {
  Closer closer;
  absl::Notification goes, go_on, drained;
  closer.Release(std::make_shared<const Slow>(go_on, &goes));
  std::thread drain([&] {
    closer.Drain();
    drained.Notify();
  });
  EXPECT_TRUE(goes.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_FALSE(drained.WaitForNotificationWithTimeout(absl::Milliseconds(100))) << "it was being released still";
  go_on.Notify();
  EXPECT_TRUE(drained.WaitForNotificationWithTimeout(absl::Seconds(20)));
  drain.join();
  closer.Drain();  // of nothing
}

TEST(CloserTest, ClosesInTheOrderInWhichItWasAsked) {
  absl::Notification go_on;
  const auto held = std::make_shared<const int>(1);
  Closer closer;
  closer.Release(held);
  closer.Release(std::make_shared<const Slow>(go_on));
  closer.Release(held);
  EXPECT_TRUE(test::Becomes([&] { return held.use_count() == 2; }));
  go_on.Notify();
  EXPECT_TRUE(test::Becomes([&] { return held.use_count() == 1; }));
}

TEST(CloserTest, ItsEndWaitsForWhatIsQuick) {
  const auto held = std::make_shared<const int>(1);
  for (int i = 0; i < 100; ++i) {
    {
      Closer closer;
      closer.Release(held);
    }
    EXPECT_EQ(held.use_count(), 1);
  }
}

}  // namespace
}  // namespace attnd::server
