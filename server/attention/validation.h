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

// A request that may run. The output, the log-sum-exp and `attention.bias` are null still: whoever runs it must
// allocate the former (unless they are in shared memory) and call PointToBias. Everything else borrows from the request
// and the model.
struct ValidAttention {
  kernel::Attention attention;
  std::optional<kernel::BiasView> bias;  // nullopt: none is added
  v1::Dtype output_dtype;
  std::int64_t output_bytes;
  std::int64_t log_sum_exp_bytes;       // 0 if not asked for
  std::shared_ptr<SharedParts> shared;  // null if nothing is
  RowPlaces places;                     // that `attention` points to

  bool output_is_shared() const { return shared != nullptr && shared->output.region != nullptr; }
  bool log_sum_exp_is_shared() const { return shared != nullptr && shared->log_sum_exp.region != nullptr; }
  // Of what is sent with the answer.
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
  // `memory` is what callers share, borrowed; null if they cannot.
  explicit AttentionValidator(const Limits& limits, const SharedMemory* memory = nullptr)
      : limits_(limits), memory_(memory) {}

  const Limits& limits() const { return limits_; }
  const SharedMemory* memory() const { return memory_; }

  // `request` without its tensors, and these. CheckBias (server/attention/bias.h) has passed it, and `model` is null
  // if it is without bias. Errors: INVALID_ARGUMENT and RESOURCE_EXHAUSTED naming the field, what
  // was expected and what it was (FieldError); NOT_FOUND for a table that the model lacks;
  // FAILED_PRECONDITION for shared memory that this server does not know.
  absl::StatusOr<ValidAttention> Validate(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                                          const model::Model* model) const;

 private:
  const Limits limits_;
  const SharedMemory* const memory_;
};

}  // namespace attnd::server
