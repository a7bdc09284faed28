// One call whose pieces travel over several streams (StreamAttention).
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/connection.h"
#include "attnd/options.h"
#include "client/src/shape.h"

namespace attnd::client {

// Whether a server has lately told that calls should ask first. Thread-safe.
class AskFirst {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration kWhile = std::chrono::seconds(5);

  void Told() { until_.store((Clock::now() + kWhile).time_since_epoch().count(), std::memory_order_relaxed); }
  bool now() const { return Clock::now().time_since_epoch().count() < until_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Clock::rep> until_{std::numeric_limits<Clock::rep>::min()};
};

// How a call is cut and spread.
struct StreamPlan {
  std::int64_t piece_bytes = std::int64_t{1} << 20;  // of q, k, v and output together; see CutIntoPieces
  int streams = 1;           // at most so many at once, each its own RPC and so perhaps to a server of its own
  int pieces_in_flight = 4;  // sent on one stream and not answered yet
  // Shared by the calls of a client: whether they ask before they send (src/contract/asking.h).
  std::shared_ptr<AskFirst> ask = std::make_shared<AskFirst>();
};

// Both send a request of the shape `shape` and reassemble its output. A piece that fails, or a stream that breaks,
// fails the call once, with the first reason, and the rest is cancelled. The pieces must all be answered by the same
// model (content hash); ABORTED if they are not, and the call can be repeated. UNIMPLEMENTED if the server knows no
// streams.

// On the calling thread. Returns when the call is over and gRPC holds no reference to borrowed memory.
absl::StatusOr<ComputeReply> StreamNow(const std::shared_ptr<grpc::Channel>& channel, const ComputeRequest& request,
                                       const Shape& shape, const StreamPlan& plan, const CallOptions& options);

// On the runtime's threads: calls `done` once the call is over and gRPC holds no reference to borrowed memory.
void StreamLater(const std::shared_ptr<grpc::Channel>& channel, ComputeRequest request, const Shape& shape,
                 const StreamPlan& plan, const CallOptions& options, ComputeCallback done);

}  // namespace attnd::client
