// Finishes a unary call in its handler.
#pragma once

#include <utility>

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// Finishes the call and returns its reactor: gRPC's default one, which needs no switch of threads. Once per call.
inline grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext& context, grpc::Status status) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

}  // namespace attnd::server
