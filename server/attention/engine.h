// Computes a decoded request: finds the model, validates, reserves memory, runs.
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
  memory::Ticket lease;  // memory of request and buffers, kept until both are freed (HoldInBuffers); destroyed last
  std::int64_t request_bytes = 0;  // the request's part of the reservation, given back if the request is freed first
  v1::ComputeAttentionResponse header;  // without its tensors
  Buffer log_sum_exp;                   // empty if not asked for, or if it was written to shared memory
  Buffer output;                        // empty if it was written to shared memory

  // Moves each buffer's part of the reservation into it, and the request's part into the output, or into the
  // log-sum-exp if there is no output. Without buffers the reservation stays: a result in shared memory has already
  // reached its caller.
  void HoldInBuffers();
};

// Options of one request.
struct ComputeOptions : schedule::SubmitOptions {
  ComputeOptions() = default;
  ComputeOptions(schedule::SubmitOptions options)  // NOLINT(google-explicit-constructor): without a peer
      : SubmitOptions(std::move(options)) {}

  std::shared_ptr<memory::Account>
      account;  // the peer's, in the engine's ledger; null: all requests without one count as one peer
};

// Owns the threads that compute; borrows the registry. Thread-safe. The destructor waits for all submitted
// computations.
class AttentionEngine {
 public:
  // `threads` >= 1. `memory`: shared memory of callers, borrowed; null if callers cannot share memory. `ledger`: where
  // the memory of requests is reserved, borrowed; null: the engine makes its own, of limits.max_inflight_bytes and
  // without shares. `max_queue_time`: Options::max_queue_time.
  AttentionEngine(const Limits& limits, model::Registry& registry, const kernel::Kernel& kernel, int threads,
                  const SharedMemory* memory = nullptr, memory::Ledger* ledger = nullptr,
                  absl::Duration max_queue_time = absl::InfiniteDuration());

  // Bytes of received messages that are still held, over all engines of this process.
  static std::int64_t received_bytes() { return ReceivedBytes::Total(); }
  int threads() const { return scheduler_.threads(); }
  const Limits& limits() const { return validator_.limits(); }
  const SharedMemory* shared_memory() const { return validator_.memory(); }

  // The most bytes held in the ledger at once since the previous call of this function. For one caller only.
  std::int64_t TakePeakBytes() { return ledger_.TakePeakBytes(); }
  // Bytes that calls and sessions hold in the ledger now, calls whose answers gRPC is still sending included.
  std::int64_t inflight_bytes() const { return ledger_.used_bytes(); }
  memory::Ledger& ledger() { return ledger_; }
  schedule::QueueUse queue() const { return scheduler_.GetQueueUse(); }
  absl::Duration max_queue_time() const { return max_queue_time_; }

  using Done = std::function<void(absl::StatusOr<AttentionResult>)>;

  static constexpr std::int64_t kAnyBytes = std::numeric_limits<std::int64_t>::max();

  // Computes `request`, whose tensors are `tensors`, and calls `done` exactly once: before this returns if the request
  // is refused (or tiny), otherwise on a thread of the scheduler, or on the thread that cancels. `done` must not block
  // and must not throw. `request` and `tensors` must stay unchanged until then. Errors: see
  // AttentionService.ComputeAttention in attention.proto; also RESOURCE_EXHAUSTED if the output and the log-sum-exp
  // that are not in shared memory exceed `max_sent_bytes`, the caller's room for them.
  void Compute(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, ComputeOptions options,
               Done done, std::int64_t max_sent_bytes = kAnyBytes);

  // The same for a validated request. Everything that `valid` points at, its model included, must stay unchanged until
  // `done`. `request_bytes`: the size of the request's message.
  void ComputeValid(ValidAttention valid, std::int64_t request_bytes, ComputeOptions options, Done done);

  // The same for a thread that many callers share: a request that takes long to validate and to cut into work items is
  // prepared on a thread of the scheduler, and validation errors are reported there.
  void ComputeAside(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors, ComputeOptions options,
                    Done done, std::int64_t max_sent_bytes = kAnyBytes);

  // Calls `work` once: with OK on a thread of the scheduler, or with the error that kept it from running, on any thread
  // that Compute's `done` may run on. It is scheduled as small work, so it does not wait for the caller's turn. `work`
  // must not throw. RunAside itself may throw std::bad_alloc, and then does not call `work`.
  void RunAside(std::function<void(const absl::Status&)> work, ComputeOptions options);

 private:
  struct Job;
  // What RunAside submits to the scheduler.
  struct Aside {
    std::unique_ptr<schedule::Work> work;
    std::function<void(const schedule::Outcome&)> ended;
  };
  Aside MakeAside(std::function<void(const absl::Status&)> work, const ComputeOptions& options) const;
  void Submit(Aside aside, ComputeOptions options);
  const std::shared_ptr<memory::Account>& AccountOf(const ComputeOptions& options) const;
  // Makes a job of a request by calling `prepare`, and submits it. `arrival`: when the request came. `lease`: what is
  // already reserved for it; may be empty.
  void Run(absl::FunctionRef<absl::Status(const ComputeOptions&, Job&)> prepare, ComputeOptions options, Done done,
           schedule::Clock::time_point arrival, memory::Ticket lease);
  absl::Status Prepare(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                       const ComputeOptions& options, std::int64_t max_sent_bytes, Job& job);
  // Reserves memory for a validated job and allocates its result buffers. `request_bytes`: the size of its message.
  // `list_bytes`: the part of its reservation that holds lists which the work needs.
  absl::Status TakeMemory(std::int64_t request_bytes, std::int64_t list_bytes, const ComputeOptions& options,
                          std::int64_t max_sent_bytes, Job& job);
  absl::StatusOr<std::unique_ptr<schedule::Work>> MakeWork(Job& job) const;

  const AttentionValidator validator_;
  const std::unique_ptr<memory::Ledger> own_ledger_;  // null if the ledger is borrowed
  memory::Ledger& ledger_;
  const std::shared_ptr<memory::Account> nobody_;  // for requests without a peer
  model::Registry& registry_;
  const kernel::Kernel& kernel_;
  const absl::Duration max_queue_time_;
  schedule::Scheduler scheduler_;  // last: its works use the other members until they are destroyed
};

}  // namespace attnd::server
