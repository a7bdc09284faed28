// From a decoded request to its result: find the model, validate, admit, run.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "kernel/registry.h"
#include "model/registry.h"
#include "schedule/scheduler.h"
#include "server/admission.h"
#include "server/buffer_pool.h"
#include "server/codec.h"
#include "server/options.h"
#include "server/validate.h"

namespace attnd::server {

struct AttentionResult {
  v1::ComputeAttentionResponse header;  // without its tensors
  Buffer log_sum_exp;                   // empty if not asked for
  Buffer output;
  Admission::Ticket ticket;  // to be kept until the result is sent
};

// Thread-safe. Borrows the registry and the scheduler; must outlive what it was asked to compute.
class AttentionEngine {
 public:
  AttentionEngine(const Limits& limits, model::Registry& registry, schedule::Scheduler& scheduler,
                  const kernel::Kernel& kernel);

  using Done = std::function<void(absl::StatusOr<AttentionResult>)>;

  // Computes `request`, whose tensors are `tensors`, and calls `done` exactly once: before this returns where the
  // request is refused (or tiny), otherwise on a thread of the scheduler, which it must not block. The caller keeps
  // `request` and `tensors` as they are until then. Errors: see AttentionService.ComputeAttention in attention.proto.
  void Compute(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
               schedule::SubmitOptions options, Done done);

 private:
  struct Job;
  absl::Status Prepare(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, Job& job);

  const AttentionValidator validator_;
  Admission admission_;
  BufferPool pool_;
  model::Registry& registry_;
  schedule::Scheduler& scheduler_;
  const kernel::Kernel& kernel_;
};

}  // namespace attnd::server
