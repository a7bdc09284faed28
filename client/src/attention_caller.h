// Chooses how a call reaches the server: through shared memory, in pieces over streams, or as one message.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/connection.h"
#include "attnd/options.h"
#include "attnd/shared_buffer.h"
#include "client/src/shape.h"
#include "client/src/staging.h"
#include "client/src/stream_call.h"

namespace attnd::client {

// Thread-safe. Calls in flight keep it alive.
class AttentionCaller : public std::enable_shared_from_this<AttentionCaller> {
 public:
  // `memory` is null where the target is no Unix socket.
  AttentionCaller(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<SharedMemory> memory, StreamPlan plan);

  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options);
  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done);
  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes);

 private:
  bool InPieces(const Shape& shape) const;
  // Whether the call is worth repeating another way; takes note of what was learnt.
  bool Repeat(const absl::Status& status, bool shared, bool streamed);
  void Attempt(int attempt, ComputeRequest request, const Shape& shape, CallOptions options, ComputeCallback done);
  // Attempt's second half: the tensors are staged, or there is nothing to stage.
  void Send(int attempt, std::optional<Staged> made, ComputeRequest request, const Shape& shape, CallOptions options,
            ComputeCallback done);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::shared_ptr<SharedMemory> memory_;
  const std::shared_ptr<StagingPool> staging_;
  const StreamPlan plan_;
  std::atomic<bool> streams_unknown_{false};  // the server has no StreamAttention
};

}  // namespace attnd::client
