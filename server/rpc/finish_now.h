// Ending a unary call in its handler.
#pragma once

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// The reactor of a call that has ended: gRPC's own, which costs no change of threads. Once for each call.
inline grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext& context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace attnd::server
