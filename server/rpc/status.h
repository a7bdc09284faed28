// Converts the engine's statuses to what a gRPC client sees. The only place that decides this.
#pragma once

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnd/v1/types.pb.h"
#include "errors/field_error.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// Errors that one field caused (errors/field_error.h). The client gets them with an attnd.v1.ErrorDetail.
using errors::FieldError;
using errors::InvalidField;
using errors::Refusal;

// UNAVAILABLE: the server is stopping. The call was not begun, so the client may send it elsewhere.
absl::Status StoppingError();

// Adds to `status` the delay after which the request may be sent again: finite and > 0.
void SetRetryDelay(absl::Duration delay, absl::Status& status);

// The delay that SetRetryDelay added; nullopt if there is none.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

// The field at fault, for the client; nullopt if `status` names none.
std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status);

// Converts a status. The code stays; the message is made printable and cut if it is long. The binary status details
// repeat both, as a serialised google.rpc.Status, which gRPC sends as grpc-status-details-bin; they contain the field
// at fault as an attnd.v1.ErrorDetail and a retry delay as a google.rpc.RetryInfo. A long message about no field has no
// details. Details tell a client that this server answered: a status that gRPC makes on the way has none. Never throws:
// if there is no memory for the message, returns RESOURCE_EXHAUSTED with "out of memory", which allocates nothing.
grpc::Status ToGrpc(const absl::Status& status);

// Writes an error to the fields `code`, `message` and `detail` of a message, as ToGrpc shows it.
template <typename Answer>
void SetError(const absl::Status& status, Answer& answer) {
  const grpc::Status shown = ToGrpc(status);  // bounds the message's length
  answer.set_code(shown.error_code());
  answer.set_message(shown.error_message());
  if (std::optional<v1::ErrorDetail> detail = DetailOf(status)) *answer.mutable_detail() = *std::move(detail);
}

}  // namespace attnd::server
