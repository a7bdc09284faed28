// A log that holds whoever writes a line: what it takes to hold a call of ModelService while it runs.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "spdlog/sinks/base_sink.h"

namespace attnd::server {

// Writers wait until Go, those of later lines do not. Thread-safe.
class StuckLog final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  // Waits until `count` writers wait; false if fewer do.
  [[nodiscard]] bool AwaitWriters(int count) {
    absl::MutexLock lock(&mutex_);
    const auto all_there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return writers_ >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&all_there), absl::Seconds(20));
  }
  void Go() {
    absl::MutexLock lock(&mutex_);
    go_ = true;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg&) override {
    absl::MutexLock lock(&mutex_);
    ++writers_;
    mutex_.Await(absl::Condition(&go_));
  }
  void flush_() override {}

 private:
  absl::Mutex mutex_;
  int writers_ ABSL_GUARDED_BY(mutex_) = 0;
  bool go_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace attnd::server
