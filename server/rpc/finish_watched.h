// Ending a unary call in its handler, with a result that is to be taken in time.
#pragma once

#include <cstdint>
#include <new>
#include <utility>

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// The reactor of a call that has ended and whose answer has `bytes`. Like gRPC's own (FinishNow) it costs no change of
// threads: what it does when the call is over is done at once by whatever thread sees that. Borrows the watch. Never
// throws: without memory for the reactor the call is not watched.
inline grpc::ServerUnaryReactor* FinishWatched(grpc::CallbackServerContext& context, StallWatch& stalls,
                                               std::int64_t bytes, grpc::Status status) {
  class Reactor final : public grpc::ServerUnaryReactor {
   public:
    explicit Reactor(StallWatch& stalls) : stalls_(stalls) {}
    bool InternalInlineable() override { return true; }
    void OnDone() override {
      stalls_.End(write_);
      delete this;
    }
    void Send(grpc_call* call, std::int64_t bytes, grpc::Status status) {
      stalls_.Begin(write_, call, bytes);
      Finish(std::move(status));
    }

   private:
    StallWatch& stalls_;
    StallWatch::Transfer write_;
  };
  auto* const reactor = new (std::nothrow) Reactor(stalls);
  if (reactor == nullptr) return FinishNow(context, std::move(status));
  reactor->Send(context.c_call(), bytes, std::move(status));
  return reactor;
}

}  // namespace attnd::server
