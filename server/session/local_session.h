// Sessions over local sockets: the counterpart of SessionService.Attend for the datagrams of attnd/v1/local.proto.
#pragma once

#include <memory>

#include "server/attention/local_sessions.h"
#include "server/rpc/call_gate.h"
#include "server/session/session_driver.h"

namespace attnd::server {

// Thread-safe. Borrows everything in `host`, and the gate; each session is in the gate until it has ended.
class LocalSessionService final : public LocalSessions {
 public:
  LocalSessionService(const SessionHost& host, CallGate& gate) : host_(host), gate_(gate) {}

  std::shared_ptr<LocalSession> Begin(const Peer& peer, const std::shared_ptr<DatagramSink>& sink) override;

 private:
  const SessionHost host_;
  CallGate& gate_;
};

}  // namespace attnd::server
