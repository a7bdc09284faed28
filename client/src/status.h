// gRPC's statuses as Abseil's.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "attnd/error_detail.h"

namespace attnd::client {

// The same code and message. Details say that the server sent it; an ErrorDetail among them becomes the status's
// payload (see error_detail.h).
absl::Status FromGrpc(const grpc::Status& status);

// The status that a message says in its fields `code`, `message` and `detail`: a LocalAnswer, or a
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
