// Converts protobuf durations to Abseil's.
#pragma once

#include "absl/time/time.h"
#include "client/messages/duration.pb.h"

namespace attnd::client {

inline absl::Duration ToDuration(const v1::Duration& d) {
  return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
}

}  // namespace attnd::client
