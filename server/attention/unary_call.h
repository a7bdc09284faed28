// ComputeAttention: one message each way.
#pragma once

#include <memory>

#include "grpcpp/server_context.h"
#include "schedule/intake.h"
#include "server/attention/engine.h"
#include "server/attention/raw_reactor.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// The reactor of a call that has entered the gate. It waits in `intake` until its message may be received, or is
// refused before that. `account` is charged for its memory and its turns. Borrows the engine, the intake and the watch.
// May throw std::bad_alloc, and then nothing has begun.
RawReactor* MakeUnaryCall(AttentionEngine& engine, schedule::Intake& intake, StallWatch& stalls, Pass pass,
                          std::shared_ptr<memory::Account> account, grpc::CallbackServerContext& context);

}  // namespace attnd::server
