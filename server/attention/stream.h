// StreamAttention: the pieces of a job over one stream.
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

// The pieces of a stream, from the start of their computation until their answers are with gRPC's transport, hold so
// many bytes at most, their results counted from the start on (StreamState). So a stream holds this and one message at
// most, however slowly its answers are read; a piece that is larger is computed alone. Room for the pieces that the
// client library has under way (4 of about 1 MiB) several times over.
inline constexpr std::int64_t kStreamWindowBytes = std::int64_t{16} << 20;

// A stream that is open.
class JobStream {
 public:
  virtual ~JobStream() = default;
  // Ends the stream with UNAVAILABLE if nothing of it has been read, computed or written for `quiet`, and its client
  // has not said that more follows: all that it was sent is answered then, and what is on its way is not begun.
  // Whether it has ended it.
  virtual bool EndIfQuietFor(std::chrono::steady_clock::duration quiet) = 0;
};

// The streams that are open. Thread-safe; outlives them.
class JobStreams {
 public:
  // The reactor of a stream, or of a unary call, that cannot be opened: see RefusedStreams.
  RawReactor* Refuse(grpc::Status status) { return refused_.Refuse(std::move(status)); }
  void Add(const std::shared_ptr<JobStream>& stream);
  void Remove(const JobStream* stream);
  // For a server that stops: from now on answers say so. Returns how many streams are left.
  std::int64_t EndThoseQuietFor(std::chrono::steady_clock::duration quiet);
  bool going_away() const { return going_away_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> going_away_{false};
  RefusedStreams<RawReactor> refused_;
  absl::Mutex mutex_;
  std::map<const JobStream*, std::weak_ptr<JobStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

// The reactor of one stream, which is in `streams` until it is over and then gone. Its first piece waits in `intake`
// until it may be received, or is refused without it; those that follow at once keep its place. Each piece is in the
// gate from its arrival until its answer is with the transport; a closed gate lets them through, so that a job that has
// begun is finished. An answer that its caller does not read in time ends the stream. Borrows the engine, the gate, the
// intake, the streams and the watch.
RawReactor* MakeAttentionStream(AttentionEngine& engine, CallGate& gate, schedule::Intake& intake, JobStreams& streams,
                                StallWatch& stalls, const Peers& peers, grpc::CallbackServerContext& context);

}  // namespace attnd::server
