#include "watchdog.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "gtest/gtest.h"

namespace attnd::test {
namespace {

// How long after abort() the process is killed.
constexpr int kGraceSeconds = 5;

// What the handler prints: its size is set last.
class Message {
 public:
  void Set(const char* suite, const char* test, int seconds) {
    size_ = 0;
    const int size = std::snprintf(text_.data(), text_.size(), "\n%s%s%s: still runs after %d seconds\n", suite,
                                   *test == '\0' ? "" : ".", test, seconds);
    size_ = std::min(static_cast<std::size_t>(std::max(size, 0)), text_.size() - 1);
  }
  // Safe in a signal handler.
  void Print() const { [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text_.data(), size_); }

 private:
  std::array<char, 512> text_;
  std::atomic<std::size_t> size_{0};
};

Message message;

// SIGALRM is left to tests, whose children set alarms.
int SignalOfWatch() { return SIGRTMAX - 1; }

void EndProcess(int /*signal*/) {
  message.Print();
  std::abort();
}

class Watch : public testing::EmptyTestEventListener {
 public:
  explicit Watch(int seconds) : seconds_(seconds) {
    struct sigaction action {};
    action.sa_handler = EndProcess;
    Require(sigaction(SignalOfWatch(), &action, nullptr));
    timer_ = NewTimer(SignalOfWatch());
    killing_timer_ = NewTimer(SIGKILL);
    Begin("before the first test", "");
  }

  void OnTestStart(const testing::TestInfo& test) override { Begin(test.test_suite_name(), test.name()); }
  void OnTestEnd(const testing::TestInfo& test) override {
    after_.fill('\0');
    std::snprintf(after_.data(), after_.size(), "after %s.%s", test.test_suite_name(), test.name());
    Begin(after_.data(), "");
  }

 private:
  static void Require(int result) {
    if (result == 0) return;
    std::fprintf(stderr, "cannot watch the tests: %s\n", std::strerror(errno));
    std::abort();
  }

  static timer_t NewTimer(int signal) {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = signal;
    timer_t timer{};
    Require(timer_create(CLOCK_MONOTONIC, &event, &timer));
    return timer;
  }

  static void Set(timer_t timer, int seconds) {
    itimerspec time{};
    time.it_value.tv_sec = seconds;
    Require(timer_settime(timer, 0, &time, nullptr));
  }

  void Begin(const char* suite, const char* test) {
    message.Set(suite, test, seconds_);
    Set(killing_timer_, seconds_ + kGraceSeconds);
    Set(timer_, seconds_);
  }

  const int seconds_;
  timer_t timer_{};
  timer_t killing_timer_{};
  std::array<char, 400> after_{};
};

}  // namespace

int TestSeconds() {
  const char* const text = std::getenv("ATTND_TEST_SECONDS");
  const int seconds = text == nullptr ? ATTND_TEST_SECONDS : std::atoi(text);
  if (seconds > 0) return seconds;
  std::fprintf(stderr, "ATTND_TEST_SECONDS: expected a number from 1, got \"%s\"\n", text);
  std::exit(2);
}

void WatchTests(int seconds) { testing::UnitTest::GetInstance()->listeners().Append(new Watch(seconds)); }

}  // namespace attnd::test
