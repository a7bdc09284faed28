#include "server/attention/service.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "memory/no_memory.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

// The method's index in the service, which protoc counts in the order of attention.proto.
constexpr int kComputeAttention = 0;

}  // namespace

AttentionService::AttentionService(AttentionEngine& engine, CallGate& gate, StallWatch& stalls,
                                   AttentionServiceOptions options)
    : engine_(engine),
      gate_(gate),
      stalls_(stalls),
      peers_(engine.ledger(), std::move(options.proxies)),
      unary_intake_(options.intake),
      stream_intake_(options.intake) {
  // Register the call as a stream of one message each way, which is the same on the wire: gRPC reads the message of a
  // unary call before the intake can decide whether it may come.
  MarkMethodStreamed(kComputeAttention, nullptr);
  MarkMethodRawCallback(kComputeAttention,
                        new grpc::internal::CallbackBidiHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
                            [this](grpc::CallbackServerContext* context) { return ComputeAttention(*context); }));
}

RawReactor* AttentionService::ComputeAttention(grpc::CallbackServerContext& context) {
  RawReactor* call = nullptr;
  const absl::Status entered = memory::CatchNoMemory([&] {
    if (!gate_.Enter()) return StoppingError();
    Pass pass(&gate_);
    call = MakeUnaryCall(engine_, unary_intake_, stalls_, std::move(pass), peers_.AccountOf(context), context);
    return absl::OkStatus();
  });
  return entered.ok() ? call : streams_.Refuse(ToGrpc(entered));
}

RawReactor* AttentionService::StreamAttention(grpc::CallbackServerContext* context) {
  return MakeAttentionStream(engine_, gate_, stream_intake_, streams_, stalls_, peers_, *context);
}

schedule::Intake::Use AttentionService::intake_use() const {
  const schedule::Intake::Use unary = unary_intake_.use(), streams = stream_intake_.use();
  return {unary.waiting + streams.waiting, unary.refused + streams.refused, unary.late + streams.late};
}

}  // namespace attnd::server
