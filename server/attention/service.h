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

// What an attention service is told at its start.
struct AttentionServiceOptions {
  // Those that are trusted to name their callers (server/rpc/peers.h).
  std::vector<AddressRange> proxies;
  // How many messages are received at a time, of unary calls and of streams each.
  schedule::IntakeOptions intake;
};

// Thread-safe. Borrows the engine, the gate, through which every call goes, and the watch over results that are not
// read.
class AttentionService final
    : public v1::AttentionService::WithRawCallbackMethod_StreamAttention<v1::AttentionService::Service> {
 public:
  AttentionService(AttentionEngine& engine, CallGate& gate, StallWatch& stalls, AttentionServiceOptions options = {});

  RawReactor* StreamAttention(grpc::CallbackServerContext* context) override;

  // For a server that stops: ends streams of which nothing has been under way for `quiet`, and returns how many are
  // left. From now on answers in streams say that the server goes away.
  std::int64_t EndStreamsQuietFor(std::chrono::steady_clock::duration quiet) {
    return streams_.EndThoseQuietFor(quiet);
  }

  // What waits to be received, and what was refused before it was.
  schedule::Intake::Use intake_use() const;

 private:
  using v1::AttentionService::Service::ComputeAttention;
  RawReactor* ComputeAttention(grpc::CallbackServerContext& context);

  AttentionEngine& engine_;
  CallGate& gate_;
  StallWatch& stalls_;
  const Peers peers_;
  // Of unary calls and of streams: the former are small where the client sends large calls in pieces, so that they do
  // not wait for those.
  schedule::Intake unary_intake_, stream_intake_;
  JobStreams streams_;
};

}  // namespace attnd::server
