// One call whose pieces are sent over several streams (StreamAttention).
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

// Whether a server has recently asked for calls that ask before they send (src/contract/asking.h). Thread-safe.
class AskFirst {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration kWhile = std::chrono::seconds(5);

  void Told() { until_.store((Clock::now() + kWhile).time_since_epoch().count(), std::memory_order_relaxed); }
  bool now() const { return Clock::now().time_since_epoch().count() < until_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Clock::rep> until_{std::numeric_limits<Clock::rep>::min()};
};

// How a call is cut into pieces and spread over streams.
struct StreamPlan {
  std::int64_t piece_bytes = std::int64_t{1} << 20;  // q, k, v and output together; see CutIntoPieces
  int streams = 1;           // maximum at once; each is an RPC of its own and may reach another server
  int pieces_in_flight = 4;  // maximum sent on one stream and not answered
  // Shared by all calls of a client: whether they ask before they send.
  std::shared_ptr<AskFirst> ask = std::make_shared<AskFirst>();
};

// Both functions send `request`, whose checked sizes are `shape`, in pieces and reassemble the output. If a piece fails
// or a stream breaks, the call fails with the first error and its other streams are cancelled. Exception: if a server
// stops or is lost, its unanswered pieces go to other streams, if there are any. All pieces must be answered by the
// same model (content hash); if they are not, the call returns ABORTED and can be repeated. UNIMPLEMENTED: the server
// does not support streams.

// Runs on the calling thread. Returns when the call is over and gRPC holds no reference to borrowed memory.
absl::StatusOr<ComputeReply> StreamNow(const std::shared_ptr<grpc::Channel>& channel, const ComputeRequest& request,
                                       const Shape& shape, const StreamPlan& plan, const CallOptions& options);

// Runs on the runtime's threads. Calls `done` once the call is over and gRPC holds no reference to borrowed memory.
void StreamLater(const std::shared_ptr<grpc::Channel>& channel, ComputeRequest request, const Shape& shape,
                 const StreamPlan& plan, const CallOptions& options, ComputeCallback done);

}  // namespace attnd::client
