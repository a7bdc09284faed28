// How long the server behind a local socket may be silent while calls wait.
#pragma once

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"

namespace attnd::client {

// Once nothing has arrived for `time`, the server is asked for a sign of life (AskForSign); the connection is lost if
// none comes within `timeout`.
struct Keepalive {
  std::chrono::steady_clock::duration time, timeout;

  // A year is without end, so that sums of it and a time are within the clock's range. Below a millisecond a socket's
  // own timeout would be none.
  static Keepalive Of(absl::Duration time, absl::Duration timeout) {
    const auto bounded = [](absl::Duration d) {
      return absl::ToChronoNanoseconds(std::clamp(d, absl::Milliseconds(1), absl::Hours(24 * 365)));
    };
    return {bounded(time), bounded(timeout)};
  }
};

}  // namespace attnd::client
