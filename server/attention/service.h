// AttentionService on gRPC's callback API and on raw bytes.
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "attnd/v1/attention.grpc.pb.h"
#include "schedule/intake.h"
#include "server/attention/engine.h"
#include "server/attention/stream.h"
#include "server/attention/unary_call.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/peers.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// Options of the attention service.
struct AttentionServiceOptions {
  // Proxies that are trusted to name their callers (server/rpc/peers.h).
  std::vector<AddressRange> proxies;
  // How many messages are received at a time; applies to unary calls and to streams separately.
  schedule::IntakeOptions intake;
};

// Thread-safe. Borrows the engine, the gate, which every call enters, and the stall watch.
class AttentionService final
    : public v1::AttentionService::WithRawCallbackMethod_StreamAttention<v1::AttentionService::Service> {
 public:
  AttentionService(AttentionEngine& engine, CallGate& gate, StallWatch& stalls, AttentionServiceOptions options = {});

  RawReactor* StreamAttention(grpc::CallbackServerContext* context) override;

  // For a stopping server: ends streams that have been quiet for `quiet`, and returns how many are left. From now on,
  // answers in streams say that the server is going away.
  std::int64_t EndStreamsQuietFor(std::chrono::steady_clock::duration quiet) {
    return streams_.EndThoseQuietFor(quiet);
  }

  // Messages that wait to be received, and those refused before they were.
  schedule::Intake::Use intake_use() const;

 private:
  using v1::AttentionService::Service::ComputeAttention;
  RawReactor* ComputeAttention(grpc::CallbackServerContext& context);

  AttentionEngine& engine_;
  CallGate& gate_;
  StallWatch& stalls_;
  const Peers peers_;
  // Unary calls have an intake of their own: they are small where the client sends large calls in pieces, and so do not
  // wait behind streams.
  schedule::Intake unary_intake_, stream_intake_;
  JobStreams streams_;
};

}  // namespace attnd::server
