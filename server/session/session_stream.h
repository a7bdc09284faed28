// SessionService.Attend: a session over one gRPC stream.
#pragma once

#include "grpcpp/server_context.h"
#include "model/registry.h"
#include "server/attention/engine.h"
#include "server/attention/raw_reactor.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/peers.h"
#include "server/rpc/refused_stream.h"
#include "server/rpc/stall_watch.h"
#include "server/session/session_table.h"

namespace attnd::server {

// The reactor of one session, which is in `table` until it is over and then gone. It reads two steps ahead of the one
// that is computed, and computes no further while an answer waits behind the one that is written: so it holds three
// messages and three results at most beside what it has reserved, all from the ledger, however slowly its answers are
// read. Borrows everything but the context.
RawReactor* MakeSessionStream(AttentionEngine& engine, const model::Registry& registry, CallGate& gate,
                              SessionTable& table, RefusedStreams<RawReactor>& refused, StallWatch& stalls,
                              const Peers& peers, grpc::CallbackServerContext& context);

}  // namespace attnd::server
