// SessionService.Attend: a session over one gRPC stream.
#pragma once

#include "grpcpp/server_context.h"
#include "server/attention/raw_reactor.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/peers.h"
#include "server/rpc/refused_stream.h"
#include "server/rpc/stall_watch.h"
#include "server/session/session_driver.h"

namespace attnd::server {

// The reactor of one session (session_driver.h). Borrows everything; gRPC keeps the context until OnDone.
RawReactor* MakeSessionStream(const SessionHost& host, CallGate& gate, RefusedStreams<RawReactor>& refused,
                              StallWatch& stalls, const Peers& peers, grpc::CallbackServerContext& context);

}  // namespace attnd::server
