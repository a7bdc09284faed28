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

// Bytes of a step's tensors and results; 0 for those that it does not have.
struct StepSizes {
  std::int64_t q = 0, k = 0, v = 0, output = 0, log_sum_exp = 0;
  DType output_dtype = DType::kFp32;
  std::array<std::int64_t, 4> output_sizes{};  // in the order of the layout
};

// Errors: INVALID_ARGUMENT if the tensors' dtypes differ; RESOURCE_EXHAUSTED for a tensor or result that no message can
// hold.
absl::StatusOr<StepSizes> SizesOf(const StepRequest& request, const SessionLayer& layer);

// A tensor of a step; not sent if it has no data.
struct StepTensor {
  const char* name;
  int field;  // of SessionRequest
  const TensorView& view;
  std::int64_t bytes;
};
std::array<StepTensor, 3> TensorsOf(const StepRequest& request, const StepSizes& sizes);

// The step's message without its tensors.
v1::SessionStep StepFields(const StepRequest& request, std::uint64_t number);

// RESOURCE_EXHAUSTED if a step's fields without tensors, `fields` bytes, exceed a message of `max_bytes`; otherwise
// nullopt.
std::optional<absl::Status> FieldsTooLarge(std::size_t fields, std::int64_t max_bytes);

// A serialised SessionRequest with a step; its tensors are copied. Errors: RESOURCE_EXHAUSTED if it is larger than
// `max_bytes`.
absl::StatusOr<grpc::ByteBuffer> EncodeStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number,
                                            std::int64_t max_bytes);

// A message from the server.
struct SessionAnswer {
  std::optional<SessionFacts> opened;
  std::optional<absl::Duration> going_away;
  std::optional<std::uint64_t> step;  // the step that is answered, with `status` or `reply`
  absl::Status status;
  StepReply reply;
};

// Errors: INTERNAL for a message that is not a SessionReply.
absl::StatusOr<SessionAnswer> DecodeAnswer(const SplitReply& split);

// Copies `bytes` to a new tensor; FitReply sets its sizes. Errors: RESOURCE_EXHAUSTED.
absl::StatusOr<Tensor> CopyOutput(DType dtype, const void* bytes, std::size_t size);

// Sets the sizes of the output of a reply to `request`, and checks that the reply has the requested results. Errors:
// INTERNAL.
absl::Status FitReply(const StepRequest& request, const StepSizes& sizes, StepReply& reply);

}  // namespace attnd::client
