// Chooses a call's transport: the local socket, gRPC with shared memory, gRPC streams (in pieces), or one gRPC message.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/connection.h"
#include "attnd/options.h"
#include "attnd/shared_buffer.h"
#include "client/src/local_calls.h"
#include "client/src/retry.h"
#include "client/src/shape.h"
#include "client/src/staging.h"
#include "client/src/stream_call.h"

namespace attnd::client {

class LocalMux;

// Thread-safe. Calls under way keep it alive.
class AttentionCaller : public std::enable_shared_from_this<AttentionCaller> {
 public:
  // `memory`, `local` (for Compute) and `mux` (for ComputeAsync) are null if the target is not a Unix socket or if the
  // option is off.
  AttentionCaller(std::shared_ptr<RetryPolicy> retry, std::shared_ptr<SharedMemory> memory, StreamPlan plan,
                  std::shared_ptr<LocalCalls> local = nullptr, std::shared_ptr<LocalMux> mux = nullptr);
  ~AttentionCaller();
  AttentionCaller(const AttentionCaller&) = delete;
  AttentionCaller& operator=(const AttentionCaller&) = delete;

  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options);
  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done);
  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes);

  // Bytes of tensors copied to and from shared memory by all calls. For tests.
  std::int64_t copied_bytes() const { return staging_ == nullptr ? 0 : staging_->copied_bytes(); }

 private:
  // The state of an asynchronous call, kept over its attempts.
  struct LaterCall;

  // One attempt over the local socket. Returns nullopt, having sent nothing, if the call cannot use it. Sets `shared`
  // if tensors were in shared memory.
  std::optional<absl::StatusOr<ComputeReply>> ComputeLocal(const ComputeRequest& request, const Shape& shape,
                                                           const CallOptions& options, bool& shared);
  // One attempt over gRPC. `plain`: as one message that contains all tensors.
  absl::StatusOr<ComputeReply> ComputeGrpc(const ComputeRequest& request, const Shape& shape,
                                           const CallOptions& options, bool plain, bool& shared, bool& streamed);
  bool InPieces(const Shape& shape) const;
  // Remembers what `status` shows about the server, and returns whether the call should be repeated with another
  // transport.
  bool Learn(const absl::Status& status, bool shared, bool streamed);
  void Attempt(std::shared_ptr<LaterCall> call);
  // AttemptLocal runs once it is known whether the server accepts calls on the local socket; SendLocal is its second
  // half, after the tensors are staged. Both fall back to AttemptGrpc if the call cannot use the local socket.
  void AttemptLocal(std::shared_ptr<LaterCall> call);
  void SendLocal(std::shared_ptr<LaterCall> call, Staged staged);
  void AttemptGrpc(std::shared_ptr<LaterCall> call);
  // AttemptGrpc's second half, after the tensors are staged or if none is to be.
  void Send(std::shared_ptr<LaterCall> call, std::optional<Staged> staged);
  void Ended(std::shared_ptr<LaterCall> call, bool shared, bool streamed, absl::StatusOr<ComputeReply> reply);
  void AttemptWhenTime(std::shared_ptr<LaterCall> call);

  const std::shared_ptr<RetryPolicy> retry_;
  const std::shared_ptr<SharedMemory> memory_;
  const std::shared_ptr<StagingPool> staging_;
  const std::shared_ptr<LocalCalls> local_;
  const std::shared_ptr<LocalMux> mux_;
  const StreamPlan plan_;
  std::atomic<bool> streams_unknown_{false};  // the server has no StreamAttention
};

}  // namespace attnd::client
