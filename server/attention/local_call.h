// One call over a local socket.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "attnd/v1/local.pb.h"
#include "server/attention/engine.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/on_arena.h"

namespace attnd::server {

// The counterpart of UnaryCall (unary_call.cc). It stays in the gate until its answer is sent or lost: whoever sends
// the answer holds the call until then. Borrows the engine and the gate.
class LocalCall final : public std::enable_shared_from_this<LocalCall> {
 public:
  // Receives the answer and the call, once, on any thread; must not block.
  using Answered = std::function<void(std::string answer, std::shared_ptr<LocalCall> call)>;

  // `request` must have a call. `account`: the caller's, in the engine's ledger.
  LocalCall(std::unique_ptr<OnArena<v1::LocalRequest>> request, std::shared_ptr<memory::Account> account)
      : id_((*request)->call().id()), request_(std::move(request)) {
    options_.account = std::move(account);
  }
  LocalCall(const LocalCall&) = delete;
  LocalCall& operator=(const LocalCall&) = delete;

  std::uint64_t id() const { return id_; }

  // Computes, and calls `answered` once, possibly before this returns. Never throws, and `answered` must not.
  void Start(AttentionEngine& engine, CallGate& gate, Answered answered);

  // Ends the call early, unless it has ended. Must not be called with a lock held that `answered` takes.
  void Cancel() { options_.cancel.Cancel(); }

 private:
  absl::Status Prepare(const Limits& limits);
  void End(absl::StatusOr<AttentionResult> result);

  const std::uint64_t id_;
  std::unique_ptr<const OnArena<v1::LocalRequest>> request_;  // until the result is ready
  RequestTensors tensors_;                                    // views of the request
  ComputeOptions options_;
  Answered answered_;
  Pass pass_;  // destroyed after the reservation
  memory::Ticket lease_;
};

}  // namespace attnd::server
