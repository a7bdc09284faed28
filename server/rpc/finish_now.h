// Ending a unary call in its handler.
#pragma once

#include <utility>

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// The reactor of a call that has ended: gRPC's own, which costs no change of threads. Once for each call.
inline grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext& context, grpc::Status status) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

}  // namespace attnd::server
