// Datagrams of a local caller that protobuf does not take.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

// A call whose request is no ComputeAttentionRequest, with the error that gRPC's callers get for the same bytes.
struct RefusedCall {
  std::uint64_t id = 0;
  absl::Status status;
};

// `datagram`, which protobuf's parser has refused, as such a call; nullopt if it is none.
std::optional<RefusedCall> ParseRefusedCall(absl::string_view datagram, std::int64_t max_header_bytes);

// The SessionRequest of a datagram that is a LocalRequest with nothing else in it, as it is on the wire; nullopt for
// any other datagram.
std::optional<absl::string_view> SessionMessageIn(absl::string_view datagram);

}  // namespace attnd::server
