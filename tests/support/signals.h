// Signals that interrupt whatever waits.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

namespace attnd::test {

// While it lives, every thread of the process gets thousands of signals a second, with an empty handler and without
// SA_RESTART: a system call that can be interrupted is. With no pause between them threads may do nothing else.
class Signals {
 public:
  Signals() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, &before_);
    thread_ = std::thread([this] { Send(); });
  }
  ~Signals() {
    stop_ = true;
    thread_.join();
    // To ignore a signal discards it where a thread has it pending still; the action of before may end the process.
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGUSR1, &ignore, nullptr);
    sigaction(SIGUSR1, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  void Send() {
    while (!stop_.load()) {
      std::error_code ended;
      for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", ended)) {
        const pid_t thread = std::stoi(entry.path().filename().string());
        if (thread != gettid()) tgkill(getpid(), thread, SIGUSR1);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

  struct sigaction before_ {};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace attnd::test
