// Calls over local sockets: the twin of AttentionService (service.h) for the datagrams of attnd/v1/local.proto.
#pragma once

#include <cstdint>
#include <memory>

#include "server/attention/engine.h"
#include "server/attention/local_sessions.h"
#include "server/rpc/call_gate.h"
#include "server/shm/local_calls.h"

namespace attnd::server {

// The protocol's version.
inline constexpr std::uint32_t kLocalVersion = 1;
// Most calls under way on a connection.
inline constexpr std::uint32_t kMaxLocalCalls = 256;

// Thread-safe. Borrows the engine, the gate, through which every call goes, and the sessions.
class LocalService final : public LocalCalls {
 public:
  // `enabled`: whether calls are taken at all; if not, a hello is answered so. `sessions`: null if there are none.
  LocalService(AttentionEngine& engine, CallGate& gate, bool enabled, LocalSessions* sessions = nullptr)
      : engine_(engine), gate_(gate), enabled_(enabled), sessions_(sessions) {}

  std::shared_ptr<LocalConnection> Connect(const Peer& peer, std::shared_ptr<DatagramSink> sink) override;

 private:
  AttentionEngine& engine_;
  CallGate& gate_;
  const bool enabled_;
  LocalSessions* const sessions_;
};

}  // namespace attnd::server
