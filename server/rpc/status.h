// From the engine's statuses to what a gRPC client sees: the one place where that is decided.
#pragma once

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnd/v1/types.pb.h"
#include "errors/field_error.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// Errors that one field caused (errors/field_error.h), which carry an attnd.v1.ErrorDetail to the client.
using errors::FieldError;
using errors::InvalidField;
using errors::Refusal;

// UNAVAILABLE: this server stops, and the call was not begun, so it may be sent again elsewhere.
absl::Status StoppingError();

// Says when the request may be sent again: finite, more than 0. Nothing else is changed.
void SetRetryDelay(absl::Duration delay, absl::Status& status);

// What SetRetryDelay said; nullopt if it said nothing.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

// The field at fault, for the client; nullopt if `status` names none.
std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status);

// The same code and message, printable and cut if it is long, and both once more (unless long and about no
// field) in the binary status details: a serialised google.rpc.Status, which gRPC sends as grpc-status-details-bin.
// There the field at fault is an attnd.v1.ErrorDetail, and a retry delay a google.rpc.RetryInfo too. Details show a
// client that this server answered: a status that gRPC makes on the way has none. Never throws: where there is no
// memory for the message, the status is RESOURCE_EXHAUSTED with "out of memory", which takes none.
grpc::Status ToGrpc(const absl::Status& status);

// An error in a message's fields `code`, `message` and `detail`, with what ToGrpc makes of it.
template <typename Answer>
void SetError(const absl::Status& status, Answer& answer) {
  const grpc::Status shown = ToGrpc(status);  // which bounds the message
  answer.set_code(shown.error_code());
  answer.set_message(shown.error_message());
  if (std::optional<v1::ErrorDetail> detail = DetailOf(status)) *answer.mutable_detail() = *std::move(detail);
}

}  // namespace attnd::server
