#include "server/attention/service.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/deadline.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/finish_watched.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// One call that has entered the gate. Shared by the engine's callback, until the result is there, and by the reactor of
// a call that had to wait for it, until gRPC says that the call is over.
class Call final : public std::enable_shared_from_this<Call> {
 public:
  Call(CallGate& gate, StallWatch& stalls, grpc_call* call, grpc::ByteBuffer* response)
      : gate_(gate), stalls_(stalls), call_(call), response_(response) {}

  void Start(AttentionEngine& engine, schedule::Clock::time_point deadline, std::shared_ptr<memory::Account> account,
             const grpc::ByteBuffer& message) {
    absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> decoded =
        Decode<v1::ComputeAttentionRequest>(message, engine.limits().max_header_bytes);
    if (!decoded.ok()) return End(decoded.status());
    request_ = *std::move(decoded);
    options_.deadline = deadline;
    options_.account = std::move(account);
    engine.Compute(request_.header, request_.tensors(), options_,
                   [self = shared_from_this()](absl::StatusOr<AttentionResult> result) {
                     if (!result.ok()) return self->End(result.status());
                     result->HoldInBuffers();  // until gRPC has sent them
                     *self->response_ =
                         EncodeReply(result->header, std::move(result->log_sum_exp), std::move(result->output));
                     self->End(absl::OkStatus());
                   });
  }

  // The reactor for gRPC, once.
  grpc::ServerUnaryReactor* ReactorFor() {
    grpc::Status status;
    {
      absl::MutexLock lock(&mutex_);
      if (!ended_.has_value()) return reactor_ = new Reactor(shared_from_this());
      status = *ended_;
    }
    return FinishWatched(stalls_, call_, static_cast<std::int64_t>(response_->Length()), status);
  }

 private:
  // Tells a call that is being computed that its caller has gone.
  class Reactor final : public grpc::ServerUnaryReactor {
   public:
    explicit Reactor(std::shared_ptr<Call> call) : call_(std::move(call)) {}
    void OnCancel() override { call_->options_.cancel.Cancel(); }
    void OnDone() override {
      call_->stalls_.End(write_);
      delete this;
    }
    void Send(const grpc::Status& status) {
      call_->stalls_.Begin(write_, call_->call_, static_cast<std::int64_t>(call_->response_->Length()));
      Finish(status);
    }

   private:
    const std::shared_ptr<Call> call_;
    StallWatch::Write write_;
  };

  void End(const absl::Status& status) {
    gate_.Leave();
    Reactor* reactor = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      reactor = reactor_;
      if (reactor == nullptr) ended_ = ToGrpc(status);
    }
    // What is left is gRPC's to send; it may end the reactor's life at once.
    if (reactor != nullptr) reactor->Send(ToGrpc(status));
  }

  CallGate& gate_;
  StallWatch& stalls_;
  grpc_call* const call_;
  grpc::ByteBuffer* const response_;
  ComputeOptions options_;
  Decoded<v1::ComputeAttentionRequest> request_;
  absl::Mutex mutex_;
  Reactor* reactor_ ABSL_GUARDED_BY(mutex_) = nullptr;         // gRPC's; null until ReactorFor made it
  std::optional<grpc::Status> ended_ ABSL_GUARDED_BY(mutex_);  // how, if that was before there was a reactor
};

}  // namespace

grpc::ServerUnaryReactor* AttentionService::ComputeAttention(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  if (!gate_.Enter()) return FinishNow(*context, ToGrpc(StoppingError()));
  const auto call = std::make_shared<Call>(gate_, stalls_, context->c_call(), response);
  call->Start(engine_, SteadyDeadline(context->raw_deadline()), peers_.AccountOf(*context), *request);
  return call->ReactorFor();
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* AttentionService::StreamAttention(
    grpc::CallbackServerContext* context) {
  return MakeAttentionStream(engine_, gate_, streams_, stalls_, peers_.AccountOf(*context), *context);
}

}  // namespace attnd::server
