// The messages of a session: SessionRequest and SessionReply.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/session.h"
#include "client/messages/session.pb.h"
#include "client/src/decode.h"

namespace attnd::client {

// A serialised SessionRequest that opens a session.
std::string EncodeOpening(const SessionRequest& request);

// Bytes of a step's tensors and of its results; 0 for what it has none of.
struct StepSizes {
  std::int64_t q = 0, k = 0, v = 0, output = 0, log_sum_exp = 0;
  DType output_dtype = DType::kFp32;
  std::array<std::int64_t, 4> output_sizes{};  // in the order of the layout
};

// Errors: INVALID_ARGUMENT for tensors of several dtypes, RESOURCE_EXHAUSTED for one that no message can hold.
absl::StatusOr<StepSizes> SizesOf(const StepRequest& request, const SessionLayer& layer);

// A tensor that a step may send; without data it does not.
struct StepTensor {
  const char* name;
  int field;  // of SessionRequest
  const TensorView& view;
  std::int64_t bytes;
};
std::array<StepTensor, 3> TensorsOf(const StepRequest& request, const StepSizes& sizes);

// A step without its tensors.
v1::SessionStep StepFields(const StepRequest& request, std::uint64_t number);

// The error of a step whose `fields` without tensors leave no room in a message of `max_bytes`: nullopt if they do.
std::optional<absl::Status> FieldsTooLarge(std::size_t fields, std::int64_t max_bytes);

// A serialised SessionRequest that makes a step, whose tensors are copied. Errors: RESOURCE_EXHAUSTED for one of more
// than `max_bytes`.
absl::StatusOr<grpc::ByteBuffer> EncodeStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number,
                                            std::int64_t max_bytes);

// What the server may say.
struct SessionAnswer {
  std::optional<SessionFacts> opened;
  std::optional<absl::Duration> going_away;
  std::optional<std::uint64_t> step;  // whose answer this is: its error, or its reply
  absl::Status status;
  StepReply reply;
};

// Errors: INTERNAL for bytes that are no SessionReply.
absl::StatusOr<SessionAnswer> DecodeAnswer(const SplitReply& split);

// `bytes` as a tensor of its own, whose sizes are set by FitReply. Errors: RESOURCE_EXHAUSTED.
absl::StatusOr<Tensor> CopyOutput(DType dtype, const void* bytes, std::size_t size);

// Gives the output of an answer to `request` its sizes, and checks that it has what was asked for. Errors: INTERNAL.
absl::Status FitReply(const StepRequest& request, const StepSizes& sizes, StepReply& reply);

}  // namespace attnd::client
