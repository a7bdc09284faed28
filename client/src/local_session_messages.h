// A session's messages as datagrams of the socket PATH.shm (attnd/v1/local.proto).
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/messages/session.pb.h"
#include "client/src/datagram_parts.h"
#include "client/src/session_messages.h"

namespace attnd::client {

std::string EncodeLocalOpening(const SessionRequest& request);
std::string EncodeLocalClose();

// Upper bound of the bytes of a LocalRequest in addition to a step's fields and tensors: the enclosing fields, and the
// places of tensors in shared memory.
inline constexpr std::size_t kBesideStep = 256;

// A step. Tensors that `step` does not place in shared memory are sent from the request's memory, so the request must
// stay valid until the datagram is sent.
class LocalStep {
 public:
  LocalStep(const v1::SessionStep& step, const StepRequest& request, const StepSizes& sizes);

  std::size_t size() const { return head_.size() + message_.size(); }
  absl::Span<const iovec> parts() { return message_.Behind(head_); }

 private:
  std::string head_;
  DatagramParts message_;
};

// A datagram from the server: exactly one of the two is set.
struct LocalSessionReply {
  std::optional<SessionAnswer> answer;
  std::optional<absl::Status> end;  // of the session; OK after a close
};

// Errors: INTERNAL for a datagram that is neither.
absl::StatusOr<LocalSessionReply> DecodeLocalReply(absl::Span<const unsigned char> datagram);

}  // namespace attnd::client
