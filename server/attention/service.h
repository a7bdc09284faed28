// AttentionService on gRPC's callback API and on raw bytes.
#pragma once

#include <chrono>
#include <utility>
#include <vector>

#include "attnd/v1/attention.grpc.pb.h"
#include "server/attention/engine.h"
#include "server/attention/stream.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/peers.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// Thread-safe. Borrows the engine, the gate, through which every call goes, and the watch over results that are not
// read.
class AttentionService final
    : public v1::AttentionService::WithRawCallbackMethod_ComputeAttention<
          v1::AttentionService::WithRawCallbackMethod_StreamAttention<v1::AttentionService::Service>> {
 public:
  // `proxies`: those that are trusted to name their callers (server/rpc/peers.h).
  AttentionService(AttentionEngine& engine, CallGate& gate, StallWatch& stalls, std::vector<AddressRange> proxies = {})
      : engine_(engine), gate_(gate), stalls_(stalls), peers_(engine.ledger(), std::move(proxies)) {}

  grpc::ServerUnaryReactor* ComputeAttention(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                             grpc::ByteBuffer* response) override;

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StreamAttention(
      grpc::CallbackServerContext* context) override;

  // For a server that stops: ends streams of which nothing has been under way for `quiet`.
  void EndStreamsQuietFor(std::chrono::steady_clock::duration quiet) { streams_.EndThoseQuietFor(quiet); }

 private:
  AttentionEngine& engine_;
  CallGate& gate_;
  StallWatch& stalls_;
  const Peers peers_;
  JobStreams streams_;
};

}  // namespace attnd::server
