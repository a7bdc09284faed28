// SessionService on gRPC's callback API and on raw bytes.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "attnd/v1/session.grpc.pb.h"
#include "model/registry.h"
#include "server/attention/engine.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/peers.h"
#include "server/rpc/refused_stream.h"
#include "server/rpc/stall_watch.h"
#include "server/session/session_stream.h"
#include "server/session/session_table.h"

namespace attnd::server {

// Thread-safe. Borrows the engine, the registry, the gate and the stall watch; each session is in the gate until its
// stream has ended.
class SessionService final
    : public v1::SessionService::WithRawCallbackMethod_Attend<v1::SessionService::WithCallbackMethod_ListSessions<
          v1::SessionService::WithCallbackMethod_EvictSession<v1::SessionService::Service>>> {
 public:
  // `proxies`: proxies that are trusted to name their callers (server/rpc/peers.h).
  SessionService(AttentionEngine& engine, const model::Registry& registry, CallGate& gate, StallWatch& stalls,
                 const SessionOptions& options, std::vector<AddressRange> proxies = {})
      : gate_(gate),
        stalls_(stalls),
        peers_(engine.ledger(), std::move(proxies)),
        table_(options),
        host_{engine, registry, table_} {}

  // For sessions over local sockets, which are in the same table.
  const SessionHost& host() const { return host_; }

  RawReactor* Attend(grpc::CallbackServerContext* context) override {
    return MakeSessionStream(host_, gate_, refused_, stalls_, peers_, *context);
  }

  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context, const v1::ListSessionsRequest* request,
                                         v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* EvictSession(grpc::CallbackServerContext* context, const v1::EvictSessionRequest* request,
                                         v1::EvictSessionResponse* response) override;

  // For a stopping server: opens no further session and notifies the open ones.
  void GoAway(absl::Duration time_left) { table_.GoAway(time_left); }
  // Then ends the sessions that are still open. May throw std::bad_alloc.
  void EndAll() { table_.EndAll(); }

  SessionTable::Use use() const { return table_.use(); }

 private:
  CallGate& gate_;
  StallWatch& stalls_;
  const Peers peers_;
  RefusedStreams<RawReactor> refused_;
  SessionTable table_;
  const SessionHost host_;
};

}  // namespace attnd::server
