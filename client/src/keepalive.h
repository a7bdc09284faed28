// How long a server on a local socket may be silent while calls wait.
#pragma once

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"

namespace attnd::client {

// If nothing has arrived for `time`, the client pings the server (AskForSign). If no reply comes within `timeout`, the
// connection is lost.
struct Keepalive {
  std::chrono::steady_clock::duration time, timeout;

  // At most a year, so that adding it to a time stays within the clock's range. At least a millisecond, because a
  // socket timeout of 0 means no timeout.
  static Keepalive Of(absl::Duration time, absl::Duration timeout) {
    const auto bounded = [](absl::Duration d) {
      return absl::ToChronoNanoseconds(std::clamp(d, absl::Milliseconds(1), absl::Hours(24 * 365)));
    };
    return {bounded(time), bounded(timeout)};
  }
};

}  // namespace attnd::client
