// From a decoded request to its result: find the model, validate, admit, run.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>

#include "absl/status/statusor.h"
#include "kernel/registry.h"
#include "model/registry.h"
#include "schedule/scheduler.h"
#include "server/attention/admission.h"
#include "server/attention/validation.h"
#include "server/config/limits.h"
#include "server/wire/buffer.h"
#include "server/wire/codec.h"

namespace attnd::server {

struct AttentionResult {
  memory::Budget::Lease lease;          // to be kept until the result is sent (Buffer::Hold does that); goes last
  v1::ComputeAttentionResponse header;  // without its tensors
  Buffer log_sum_exp;                   // empty if not asked for, or if it was written to shared memory
  Buffer output;                        // empty if it was written to shared memory
};

// Owns the threads that compute; borrows the registry. Thread-safe. Its destructor waits for what it was asked to
// compute.
class AttentionEngine {
 public:
  // `threads` >= 1. `memory` is what callers share, borrowed too; null if they cannot.
  AttentionEngine(const Limits& limits, model::Registry& registry, const kernel::Kernel& kernel, int threads,
                  const SharedMemory* memory = nullptr);

  int threads() const { return scheduler_.threads(); }
  const Limits& limits() const { return validator_.limits(); }

  // The most bytes that calls held at once since this was last called. For one caller.
  std::int64_t TakePeakBytes() { return admission_.TakePeakBytes(); }
  // What calls hold now; those whose answers gRPC is still sending are among them.
  std::int64_t inflight_bytes() const { return admission_.inflight_bytes(); }

  using Done = std::function<void(absl::StatusOr<AttentionResult>)>;

  static constexpr std::int64_t kAnyBytes = std::numeric_limits<std::int64_t>::max();

  // Computes `request`, whose tensors are `tensors`, and calls `done` exactly once: before this returns where the
  // request is refused (or tiny), otherwise on a thread of the scheduler, which it must not block. The caller keeps
  // `request` and `tensors` as they are until then. `done` must not throw. Errors: see
  // AttentionService.ComputeAttention in attention.proto; RESOURCE_EXHAUSTED too where the output and the log-sum-exp
  // that are not in shared memory take more than `max_sent_bytes`, the room that the caller has for them.
  void Compute(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
               schedule::SubmitOptions options, Done done, std::int64_t max_sent_bytes = kAnyBytes);

  // The same for a thread that many callers share: a request that takes long to validate and to cut into items is
  // prepared on a thread of the scheduler too, and refused there.
  void ComputeAside(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                    schedule::SubmitOptions options, Done done, std::int64_t max_sent_bytes = kAnyBytes);

 private:
  struct Job;
  // `arrival`: when the request came.
  void Run(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, schedule::SubmitOptions options,
           Done done, std::int64_t max_sent_bytes, schedule::Clock::time_point arrival);
  absl::Status Prepare(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                       std::int64_t max_sent_bytes, Job& job);
  absl::StatusOr<std::unique_ptr<schedule::Work>> MakeWork(Job& job) const;

  const AttentionValidator validator_;
  Admission admission_;
  model::Registry& registry_;
  const kernel::Kernel& kernel_;
  schedule::Scheduler scheduler_;  // last: its works use the others until they are destroyed
};

}  // namespace attnd::server
