#include "client/attnctl/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace attnd::ctl {

Progress::Progress(std::string what) : what_(std::move(what)) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Show(); });
}

Progress::~Progress() {
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Progress::Next(std::string what) {
  absl::MutexLock lock(&mutex_);
  what_ = std::move(what);
}

void Progress::Show() {
  const absl::Time start = absl::Now();
  bool shown = false;
  while (true) {
    std::string what;
    {
      absl::MutexLock lock(&mutex_);
      const absl::Duration wait = shown ? absl::Milliseconds(200) : absl::Seconds(1);
      if (mutex_.AwaitWithTimeout(absl::Condition(&done_), wait)) break;
      what = what_;
    }
    // Outside the lock, since a terminal may block. Returns to the line's start; the rest of a longer previous line is
    // erased.
    std::fprintf(stderr, "\r%s, %.0f s\x1b[K", what.c_str(), absl::ToDoubleSeconds(absl::Now() - start));
    shown = true;
  }
  if (shown) std::fprintf(stderr, "\r\x1b[K");
}

}  // namespace attnd::ctl
