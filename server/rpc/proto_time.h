// Converts Abseil's times to protobuf's.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace attnd::server {

// `duration` must be finite.
inline google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<std::int32_t>(absl::ToInt64Nanoseconds(duration)));
  return proto;
}

// `time` must be finite and not before 1970.
inline google::protobuf::Timestamp ToProto(absl::Time time) {
  const google::protobuf::Duration since = ToProto(time - absl::UnixEpoch());
  google::protobuf::Timestamp proto;
  proto.set_seconds(since.seconds());
  proto.set_nanos(since.nanos());
  return proto;
}

}  // namespace attnd::server
