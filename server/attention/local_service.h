// Calls over local sockets: the counterpart of AttentionService (service.h) for the datagrams of attnd/v1/local.proto.
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
// The most calls under way on one connection.
inline constexpr std::uint32_t kMaxLocalCalls = 256;

// Thread-safe. Borrows the engine, the gate, which every call enters, and the sessions.
class LocalService final : public LocalCalls {
 public:
  // `enabled`: if false, the server takes no calls and answers a hello with UNIMPLEMENTED. `sessions`: null if the
  // server has none.
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
