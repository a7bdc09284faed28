// Finishes a unary call in its handler, and watches that the caller reads the result in time.
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

// Finishes a call whose answer has `bytes`, and returns its reactor. Like gRPC's default one (FinishNow) it needs no
// switch of threads: OnDone runs on the thread that sees the call end. Borrows the watch. Never throws: if there is no
// memory for the reactor, the call is not watched.
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
