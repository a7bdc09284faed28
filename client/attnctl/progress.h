// Shows progress on a terminal.
#pragma once

#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::ctl {

// From its first second until it is destroyed, shows on standard error what is being done and for how long. Silent if
// standard error is not a terminal.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Changes what is being done.
  void Next(std::string what) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Show() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::string what_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // not running without a terminal
};

}  // namespace attnd::ctl
