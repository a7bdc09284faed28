// Local datagrams that are not parsed as a whole LocalRequest: calls that protobuf refuses, and session messages.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

// A call whose request is not a valid ComputeAttentionRequest, with the error that gRPC's callers get for the same
// bytes.
struct RefusedCall {
  std::uint64_t id = 0;
  absl::Status status;
};

// Reads `datagram`, which protobuf's parser has refused, as such a call; nullopt if it is not one.
std::optional<RefusedCall> ParseRefusedCall(absl::string_view datagram, std::int64_t max_header_bytes);

// The serialized SessionRequest in a datagram that is a LocalRequest with no other field; nullopt for any other
// datagram.
std::optional<absl::string_view> SessionMessageIn(absl::string_view datagram);

}  // namespace attnd::server
