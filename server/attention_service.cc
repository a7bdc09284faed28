#include "server/attention_service.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/attention_stream.h"
#include "server/codec.h"
#include "server/status.h"

namespace attnd::server {
namespace {

// One call that has entered the gate. Lives until gRPC says that it is over, which is after Finish.
class Call final : public grpc::ServerUnaryReactor {
 public:
  Call(CallGate& gate, const grpc::CallbackServerContext& context, grpc::ByteBuffer* response)
      : gate_(gate), response_(response) {
    options_.deadline = absl::FromChrono(context.deadline());
  }

  void Start(AttentionEngine& engine, const grpc::ByteBuffer& message) {
    absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> decoded = Decode<v1::ComputeAttentionRequest>(message);
    if (!decoded.ok()) return End(decoded.status());
    request_ = *std::move(decoded);
    engine.Compute(request_.header, request_.tensors(), options_, [this](absl::StatusOr<AttentionResult> result) {
      if (!result.ok()) return End(result.status());
      *response_ = EncodeReply(result->header, std::move(result->log_sum_exp), std::move(result->output));
      ticket_ = std::move(result->ticket);
      End(absl::OkStatus());
    });
  }

  void OnCancel() override { options_.cancel.Cancel(); }
  void OnDone() override { delete this; }

 private:
  // What is left is gRPC's to send; it may end this object's life at once.
  void End(const absl::Status& status) {
    gate_.Leave();
    Finish(ToGrpc(status));
  }

  CallGate& gate_;
  grpc::ByteBuffer* const response_;
  schedule::SubmitOptions options_;
  Decoded<v1::ComputeAttentionRequest> request_;
  Admission::Ticket ticket_;
};

}  // namespace

grpc::ServerUnaryReactor* AttentionService::ComputeAttention(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  if (!gate_.Enter()) {
    grpc::ServerUnaryReactor* const refusal = context->DefaultReactor();
    refusal->Finish(ToGrpc(absl::UnavailableError("the server is stopping")));
    return refusal;
  }
  Call* const call = new Call(gate_, *context, response);
  call->Start(engine_, *request);
  return call;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* AttentionService::StreamAttention(
    grpc::CallbackServerContext* context) {
  return MakeAttentionStream(engine_, gate_, *context);
}

}  // namespace attnd::server
