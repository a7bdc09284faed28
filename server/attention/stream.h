// StreamAttention: the pieces of a call over one stream.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server_context.h"
#include "schedule/intake.h"
#include "server/attention/engine.h"
#include "server/attention/raw_reactor.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/peers.h"
#include "server/rpc/refused_stream.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// Limit on the bytes that a stream holds in pieces under computation, their expected results included, and in answers
// not yet with gRPC's transport (StreamState). Reading pauses when a piece does not fit, so the peak is this plus one
// message, however slowly answers are read; a piece larger than this is computed alone. Several times what the client
// library has under way (4 pieces of about 1 MiB).
inline constexpr std::int64_t kStreamWindowBytes = std::int64_t{16} << 20;

// An open stream.
class JobStream {
 public:
  virtual ~JobStream() = default;
  // Ends the stream with UNAVAILABLE if it has read, computed and written nothing for `quiet`, is not waiting in the
  // intake, and its client has not announced another piece. All pieces that were read are then answered; one on its way
  // is not begun. Returns whether it ended the stream.
  virtual bool EndIfQuietFor(std::chrono::steady_clock::duration quiet) = 0;
};

// The open streams. Thread-safe; outlives them.
class JobStreams {
 public:
  // The reactor of a stream or unary call that cannot be opened: see RefusedStreams.
  RawReactor* Refuse(grpc::Status status) { return refused_.Refuse(std::move(status)); }
  void Add(const std::shared_ptr<JobStream>& stream);
  void Remove(const JobStream* stream);
  // For a stopping server: ends the streams that have been quiet for `quiet`, and returns how many are left. From now
  // on, answers say that the server is going away.
  std::int64_t EndThoseQuietFor(std::chrono::steady_clock::duration quiet);
  bool going_away() const { return going_away_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> going_away_{false};
  RefusedStreams<RawReactor> refused_;
  absl::Mutex mutex_;
  std::map<const JobStream*, std::weak_ptr<JobStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

// The reactor of one stream. It is in `streams` until the stream is over, then destroys itself. The first piece waits
// in `intake` until it may be received, or is refused before it is; pieces announced by `more` keep the stream's place
// there. Each piece is in the gate from its arrival until its answer is with the transport; a closed gate admits
// further pieces, so that a stream that has begun is finished. An answer that its caller does not read in time ends the
// stream. Borrows the engine, the gate, the intake, the streams and the watch.
RawReactor* MakeAttentionStream(AttentionEngine& engine, CallGate& gate, schedule::Intake& intake, JobStreams& streams,
                                StallWatch& stalls, const Peers& peers, grpc::CallbackServerContext& context);

}  // namespace attnd::server
