// Converts gRPC statuses to Abseil's.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "attnd/error_detail.h"

namespace attnd::client {

// The status with the same code and message. If it has details, the server sent it, and it is marked so; an ErrorDetail
// among them becomes a payload (see error_detail.h).
absl::Status FromGrpc(const grpc::Status& status);

// The status in the fields `code`, `message` and `detail` of a server's message, e.g. a LocalAnswer or a
// StreamAttentionResponse.
template <typename Answer>
absl::Status StatusOf(const Answer& answer) {
  absl::Status status(static_cast<absl::StatusCode>(answer.code()), answer.message());
  if (status.ok()) return status;
  status.SetPayload(kAnsweredUrl, absl::Cord());
  if (answer.has_detail()) status.SetPayload(kErrorDetailUrl, absl::Cord(answer.detail().SerializeAsString()));
  return status;
}

}  // namespace attnd::client
