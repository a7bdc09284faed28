#include "server/attention_service.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/codec.h"
#include "server/status.h"

namespace attnd::server {
namespace {

// One call. Lives until gRPC says that it is over, which is after Finish.
class Call final : public grpc::ServerUnaryReactor {
 public:
  Call(grpc::CallbackServerContext* context, grpc::ByteBuffer* response) : response_(response) {
    options_.deadline = absl::FromChrono(context->deadline());
  }

  void Start(AttentionEngine& engine, const grpc::ByteBuffer& message) {
    absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> decoded = Decode<v1::ComputeAttentionRequest>(message);
    if (!decoded.ok()) return Finish(ToGrpc(decoded.status()));
    request_ = *std::move(decoded);
    engine.Compute(request_.header, request_.tensors(), options_, [this](absl::StatusOr<AttentionResult> result) {
      if (!result.ok()) return Finish(ToGrpc(result.status()));
      *response_ = EncodeReply(result->header, std::move(result->log_sum_exp), std::move(result->output));
      ticket_ = std::move(result->ticket);
      Finish(grpc::Status::OK);
    });
  }

  void OnCancel() override { options_.cancel.Cancel(); }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer* const response_;
  schedule::SubmitOptions options_;
  Decoded<v1::ComputeAttentionRequest> request_;
  Admission::Ticket ticket_;
};

}  // namespace

grpc::ServerUnaryReactor* AttentionService::ComputeAttention(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  Call* const call = new Call(context, response);
  call->Start(engine_, *request);
  return call;
}

}  // namespace attnd::server
