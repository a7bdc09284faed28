// Ending a unary call in its handler, with a result that is to be taken in time.
#pragma once

#include <cstdint>

#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// The reactor of a call that has ended and whose answer has `bytes`. Like gRPC's own (FinishNow) it costs no change of
// threads: what it does when the call is over is done at once by whatever thread sees that. Borrows the watch.
inline grpc::ServerUnaryReactor* FinishWatched(StallWatch& stalls, grpc_call* call, std::int64_t bytes,
                                               const grpc::Status& status) {
  class Reactor final : public grpc::ServerUnaryReactor {
   public:
    explicit Reactor(StallWatch& stalls) : stalls_(stalls) {}
    bool InternalInlineable() override { return true; }
    void OnDone() override {
      stalls_.End(write_);
      delete this;
    }
    void Send(grpc_call* call, std::int64_t bytes, const grpc::Status& status) {
      stalls_.Begin(write_, call, bytes);
      Finish(status);
    }

   private:
    StallWatch& stalls_;
    StallWatch::Write write_;
  };
  auto* const reactor = new Reactor(stalls);
  reactor->Send(call, bytes, status);
  return reactor;
}

}  // namespace attnd::server
