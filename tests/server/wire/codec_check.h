// The codec held against protobuf's own parser, for the tests and the fuzz target.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "grpcpp/support/byte_buffer.h"
#include "platform/platform.h"

#if ATTND_ABSL_LOG
#include "absl/log/globals.h"
#else
#include "google/protobuf/stubs/logging.h"
#endif

namespace attnd::server {

// Small fields of a message may take this much here.
inline constexpr std::int64_t kMaxHeaderBytes = std::int64_t{1} << 20;

// While one lives, protobuf writes no line about each string that is no UTF-8.
#if ATTND_ABSL_LOG
class SilentProtobuf {
 public:
  SilentProtobuf() { absl::SetStderrThreshold(absl::LogSeverityAtLeast::kInfinity); }
};
#else
using SilentProtobuf = google::protobuf::LogSilencer;
#endif

// `bytes` as a message received in slices; `cuts` says where: each of its bytes is the size of the next slice, over and
// over. No cuts: one slice.
grpc::ByteBuffer InSlices(absl::string_view bytes, absl::string_view cuts);

// Decodes `message` both ways, as a ComputeAttentionRequest and as a StreamAttentionRequest. Returns where the results
// differ, or an empty string.
std::string DifferenceFromProtobuf(const grpc::ByteBuffer& message, const std::string& bytes);

}  // namespace attnd::server
