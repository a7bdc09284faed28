// Waiting in tests, always for a bounded time, and what a process must not leave behind.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace attnd::test {

// How long a test waits for what must come: much longer than it takes on a busy machine, with sanitizers too, and
// less than the watchdog's time (watchdog.h), of which ATTND_TEST_SECONDS leaves two thirds.
inline absl::Duration Patience() {
  const char* const text = std::getenv("ATTND_TEST_SECONDS");
  const int most = text == nullptr ? 0 : std::atoi(text);
  return std::min(absl::Seconds(100), most > 0 ? absl::Seconds(most) * 2 / 3 : absl::InfiniteDuration());
}

// Whether the condition is seen to hold, once, within `time`.
template <typename Condition>
bool Becomes(const Condition& condition, absl::Duration time = absl::Seconds(20)) {
  const absl::Time deadline = absl::Now() + time;
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

// Whether the notification comes.
inline bool Comes(const absl::Notification& notification) {
  return notification.WaitForNotificationWithTimeout(Patience());
}

// Whether the future becomes ready.
template <typename Future>
bool IsReady(const Future& future) {
  return future.wait_for(absl::ToChronoMilliseconds(Patience())) == std::future_status::ready;
}

// The value of a future of absl::StatusOr; DEADLINE_EXCEEDED if it does not become ready.
template <typename Future>
auto ValueOf(Future&& future) -> decltype(future.get()) {
  if (IsReady(future)) return future.get();
  return absl::DeadlineExceededError(absl::StrCat("the future is not ready after ", absl::FormatDuration(Patience())));
}

// Whether `act`, on a thread of its own, ends within twenty seconds. If not, the thread goes on: fail the test then,
// and use nothing that `act` uses.
template <typename Act>
bool Ends(Act act) {
  std::promise<void> over;
  std::future<void> ended = over.get_future();
  std::thread thread([act = std::move(act), over = std::move(over)]() mutable {
    act();
    over.set_value();
  });
  if (ended.wait_for(std::chrono::seconds(20)) == std::future_status::ready) return thread.join(), true;
  thread.detach();
  return false;
}

// Descriptors that this process has open, with the one that counts them. A thread that starts opens a file for a moment
// (glibc counts the processors), so a count before is to be compared with <=, in Becomes.
inline std::size_t OpenDescriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

}  // namespace attnd::test
