// From a decoded request to its result: find the model, validate, admit, run.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernel/registry.h"
#include "memory/ledger.h"
#include "model/registry.h"
#include "schedule/scheduler.h"
#include "server/attention/validation.h"
#include "server/config/limits.h"
#include "server/wire/buffer.h"
#include "server/wire/codec.h"
#include "server/wire/received_bytes.h"

namespace attnd::server {

struct AttentionResult {
  memory::Ticket lease;  // of the request and the buffers, to be kept until both are gone (HoldInBuffers); goes last
  std::int64_t request_bytes = 0;       // of the lease, for the request: to be given back if that goes before
  v1::ComputeAttentionResponse header;  // without its tensors
  Buffer log_sum_exp;                   // empty if not asked for, or if it was written to shared memory
  Buffer output;                        // empty if it was written to shared memory

  // Lets each buffer hold what the lease has for it, and the last one what is for the request too. Without buffers the
  // lease stays: a result in shared memory is with its caller already.
  void HoldInBuffers();
};

// Of one request.
struct ComputeOptions : schedule::SubmitOptions {
  ComputeOptions() = default;
  ComputeOptions(schedule::SubmitOptions options)  // NOLINT(google-explicit-constructor): one without a peer
      : SubmitOptions(std::move(options)) {}

  std::shared_ptr<memory::Account>
      account;  // the peer's, of the engine's ledger; null: all such requests are one peer's
};

// Owns the threads that compute; borrows the registry. Thread-safe. Its destructor waits for what it was asked to
// compute.
class AttentionEngine {
 public:
  // `threads` >= 1. `memory` is what callers share, borrowed too; null if they cannot. `ledger` is where the memory of
  // requests comes from, borrowed too; null: one of its own, of limits.max_inflight_bytes and without shares.
  // `max_queue_time`: Options::max_queue_time.
  AttentionEngine(const Limits& limits, model::Registry& registry, const kernel::Kernel& kernel, int threads,
                  const SharedMemory* memory = nullptr, memory::Ledger* ledger = nullptr,
                  absl::Duration max_queue_time = absl::InfiniteDuration());

  // Of messages that have arrived, whichever engine of this process has them.
  static std::int64_t received_bytes() { return ReceivedBytes::Total(); }
  int threads() const { return scheduler_.threads(); }
  const Limits& limits() const { return validator_.limits(); }
  const SharedMemory* shared_memory() const { return validator_.memory(); }

  // The most bytes that calls held at once since this was last called. For one caller.
  std::int64_t TakePeakBytes() { return ledger_.TakePeakBytes(); }
  // What calls hold now; those whose answers gRPC is still sending are among them.
  std::int64_t inflight_bytes() const { return ledger_.used_bytes(); }
  memory::Ledger& ledger() { return ledger_; }
  schedule::QueueUse queue() const { return scheduler_.GetQueueUse(); }
  absl::Duration max_queue_time() const { return max_queue_time_; }

  using Done = std::function<void(absl::StatusOr<AttentionResult>)>;

  static constexpr std::int64_t kAnyBytes = std::numeric_limits<std::int64_t>::max();

  // Computes `request`, whose tensors are `tensors`, and calls `done` exactly once: before this returns where the
  // request is refused (or tiny), otherwise on a thread of the scheduler, which it must not block. The caller keeps
  // `request` and `tensors` as they are until then. `done` must not throw. Errors: see
  // AttentionService.ComputeAttention in attention.proto; RESOURCE_EXHAUSTED too where the output and the log-sum-exp
  // that are not in shared memory take more than `max_sent_bytes`, the room that the caller has for them.
  void Compute(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, ComputeOptions options,
               Done done, std::int64_t max_sent_bytes = kAnyBytes);

  // The same for a request that is valid, and whose model, if it has one, `valid` borrows from: whatever it points at
  // stays as it is until `done`. `request_bytes`: what the request's message holds.
  void ComputeValid(ValidAttention valid, std::int64_t request_bytes, ComputeOptions options, Done done);

  // The same for a thread that many callers share: a request that takes long to validate and to cut into items is
  // prepared on a thread of the scheduler too, and refused there.
  void ComputeAside(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, ComputeOptions options,
                    Done done, std::int64_t max_sent_bytes = kAnyBytes);

  // Calls `work` once, with OK on a thread of the scheduler, in the caller's turn; or with the error by which it did
  // not get there: as for what is computed. It must not throw. May throw std::bad_alloc itself, and then does not call
  // it.
  void RunAside(std::function<void(const absl::Status&)> work, ComputeOptions options);

 private:
  struct Job;
  // What RunAside gives to the scheduler.
  struct Aside {
    std::unique_ptr<schedule::Work> work;
    std::function<void(const schedule::Outcome&)> ended;
  };
  Aside MakeAside(std::function<void(const absl::Status&)> work, const ComputeOptions& options) const;
  void Submit(Aside aside, ComputeOptions options);
  const std::shared_ptr<memory::Account>& AccountOf(const ComputeOptions& options) const;
  // What a request that came at `arrival`, and for which `lease` has been taken already, is made a job by.
  void Run(absl::FunctionRef<absl::Status(const ComputeOptions&, Job&)> prepare, ComputeOptions options, Done done,
           schedule::Clock::time_point arrival, memory::Ticket lease);
  absl::Status Prepare(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                       const ComputeOptions& options, std::int64_t max_sent_bytes, Job& job);
  // Of a job that is valid. `request_bytes`: of its message. `list_bytes`: of what its lease has already, and its work
  // needs.
  absl::Status TakeMemory(std::int64_t request_bytes, std::int64_t list_bytes, const ComputeOptions& options,
                          std::int64_t max_sent_bytes, Job& job);
  absl::StatusOr<std::unique_ptr<schedule::Work>> MakeWork(Job& job) const;

  const AttentionValidator validator_;
  const std::unique_ptr<memory::Ledger> own_ledger_;  // null if it borrows one
  memory::Ledger& ledger_;
  const std::shared_ptr<memory::Account> nobody_;  // of requests without a peer
  model::Registry& registry_;
  const kernel::Kernel& kernel_;
  const absl::Duration max_queue_time_;
  schedule::Scheduler scheduler_;  // last: its works use the others until they are destroyed
};

}  // namespace attnd::server
