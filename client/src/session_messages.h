// The messages of a session's stream.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnd/session.h"

namespace attnd::client {

// A serialised SessionRequest that opens a session.
grpc::ByteBuffer EncodeOpening(const SessionRequest& request);

// One that makes a step, whose tensors are copied. Errors: INVALID_ARGUMENT with an ErrorDetail, RESOURCE_EXHAUSTED for
// what no message can hold.
absl::StatusOr<grpc::ByteBuffer> EncodeStep(const StepRequest& request, std::uint64_t number);

// What the server may say.
struct SessionAnswer {
  std::optional<SessionFacts> opened;
  std::optional<absl::Duration> going_away;
  std::optional<std::uint64_t> step;  // whose answer this is: its error, or its reply
  absl::Status status;
  StepReply reply;
};

// Errors: INTERNAL for bytes that are no SessionReply.
absl::StatusOr<SessionAnswer> DecodeAnswer(grpc::ByteBuffer& bytes);

// Gives the output of an answer to `request` its dtype and sizes, and checks that it has what was asked for. Errors:
// INTERNAL.
absl::Status FitReply(const StepRequest& request, const SessionLayer& layer, StepReply& reply);

}  // namespace attnd::client
