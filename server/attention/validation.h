// Checks of a ComputeAttention request against the limits and the model, before anything is allocated or computed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernel/attention.h"
#include "model/model.h"
#include "server/attention/row_places.h"
#include "server/attention/tensor_places.h"
#include "server/config/limits.h"
#include "server/shm/shared_memory.h"
#include "server/wire/codec.h"

namespace attnd::server {

// A validated request. `attention` points to no output, log-sum-exp or bias yet: the caller must set the first two
// (allocated, or in shared memory) and call PointToBias. Everything else borrows from the request and the model.
struct ValidAttention {
  kernel::Attention attention;
  std::optional<kernel::BiasView> bias;  // nullopt: no bias
  v1::Dtype output_dtype;
  std::int64_t output_bytes;
  std::int64_t log_sum_exp_bytes;       // 0 if not asked for
  std::shared_ptr<SharedParts> shared;  // null if nothing is shared
  RowPlaces places;                     // `attention` points into it

  bool output_is_shared() const { return shared != nullptr && shared->output.region != nullptr; }
  bool log_sum_exp_is_shared() const { return shared != nullptr && shared->log_sum_exp.region != nullptr; }
  // Bytes sent with the answer; 0 for results in shared memory.
  std::int64_t sent_output_bytes() const { return output_is_shared() ? 0 : output_bytes; }
  std::int64_t sent_log_sum_exp_bytes() const { return log_sum_exp_is_shared() ? 0 : log_sum_exp_bytes; }

  // Sets `attention.bias`, which points into this object.
  void PointToBias() { attention.bias = bias.has_value() ? &*bias : nullptr; }
};

// RESOURCE_EXHAUSTED if the results that are sent with the answer take more than `max_sent_bytes`.
absl::Status CheckSent(const ValidAttention& valid, std::int64_t max_sent_bytes);

// Thread-safe.
class AttentionValidator {
 public:
  // `memory`: shared memory of callers, borrowed; null if callers cannot share memory.
  explicit AttentionValidator(const Limits& limits, const SharedMemory* memory = nullptr)
      : limits_(limits), memory_(memory) {}

  const Limits& limits() const { return limits_; }
  const SharedMemory* memory() const { return memory_; }

  // `request` has no tensors; they are in `tensors`. CheckBias (server/attention/bias.h) must have passed; `model` is
  // null for a request without a bias. Errors: INVALID_ARGUMENT and RESOURCE_EXHAUSTED naming the field, the expected
  // value and the value it had (FieldError); NOT_FOUND for a table that the model lacks; FAILED_PRECONDITION for shared
  // memory that this server does not know.
  absl::StatusOr<ValidAttention> Validate(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                                          const model::Model* model) const;

 private:
  const Limits limits_;
  const SharedMemory* const memory_;
};

}  // namespace attnd::server
