#include "server/attention/service.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "memory/no_memory.h"
#include "server/rpc/deadline.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/finish_watched.h"
#include "server/rpc/pushback.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// One call that has entered the gate. Shared by the engine's callback, until the result is there, and by the reactor of
// a call that had to wait for it, until gRPC says that the call is over.
class Call final : public std::enable_shared_from_this<Call> {
 public:
  Call(Pass pass, StallWatch& stalls, grpc::CallbackServerContext& context, grpc::ByteBuffer* response)
      : pass_(std::move(pass)), stalls_(stalls), context_(context), response_(response) {}

  // Never throws.
  void Start(AttentionEngine& engine, schedule::Clock::time_point deadline, std::shared_ptr<memory::Account> account,
             const grpc::ByteBuffer& message) {
    AttentionEngine::Done done;
    const absl::Status decoded = memory::CatchNoMemory([&] {
      absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> request =
          Decode<v1::ComputeAttentionRequest>(message, engine.limits().max_header_bytes);
      if (!request.ok()) return request.status();
      request_ = *std::move(request);
      done = [self = shared_from_this()](absl::StatusOr<AttentionResult> result) {
        self->End(self->Answer(std::move(result)));
      };
      return absl::OkStatus();
    });
    if (!decoded.ok()) return End(decoded);
    options_.deadline = deadline;
    options_.account = std::move(account);
    engine.Compute(request_.header, request_.tensors(), options_, std::move(done));
  }

  // The reactor for gRPC, once.
  grpc::ServerUnaryReactor* ReactorFor(grpc::CallbackServerContext& context) {
    grpc::Status status;
    {
      absl::MutexLock lock(&mutex_);
      if (!ended_.has_value()) return &reactor_.emplace(shared_from_this());
      status = *std::move(ended_);
    }
    return FinishWatched(context, stalls_, static_cast<std::int64_t>(response_->Length()), std::move(status));
  }

 private:
  // Tells a call that is being computed that its caller has gone. Part of the call, which it holds, so that there is
  // one whatever memory is left.
  class Reactor final : public grpc::ServerUnaryReactor {
   public:
    explicit Reactor(std::shared_ptr<Call> call) : call_(std::move(call)) {}
    void OnCancel() override { call_->options_.cancel.Cancel(); }
    void OnDone() override {
      call_->stalls_.End(write_);
      const std::shared_ptr<Call> last = std::move(call_);
    }
    void Send(grpc::Status status) {
      call_->stalls_.Begin(write_, call_->context_.c_call(), static_cast<std::int64_t>(call_->response_->Length()));
      Finish(std::move(status));
    }

   private:
    std::shared_ptr<Call> call_;
    StallWatch::Write write_;
  };

  // Encodes the result.
  absl::Status Answer(absl::StatusOr<AttentionResult> result) {
    if (!result.ok()) return result.status();
    result->HoldInBuffers();  // until gRPC has sent them; what is in shared memory is with its caller already
    return memory::CatchNoMemoryIn(
        [&] { *response_ = EncodeReply(result->header, std::move(result->log_sum_exp), std::move(result->output)); });
  }

  void End(const absl::Status& status) {
    pass_.reset();
    AddPushback(context_, status);
    Reactor* reactor = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      reactor = reactor_.has_value() ? &*reactor_ : nullptr;
      if (reactor == nullptr) ended_ = ToGrpc(status);
    }
    // What is left is gRPC's to send; it may end the reactor's life at once.
    if (reactor != nullptr) reactor->Send(ToGrpc(status));
  }

  Pass pass_;
  StallWatch& stalls_;
  grpc::CallbackServerContext& context_;  // gRPC's, until the call has ended
  grpc::ByteBuffer* const response_;
  ComputeOptions options_;
  Decoded<v1::ComputeAttentionRequest> request_;
  absl::Mutex mutex_;
  std::optional<Reactor> reactor_ ABSL_GUARDED_BY(mutex_);     // gRPC's, once ReactorFor made it
  std::optional<grpc::Status> ended_ ABSL_GUARDED_BY(mutex_);  // how, if that was before there was a reactor
};

}  // namespace

grpc::ServerUnaryReactor* AttentionService::ComputeAttention(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  std::shared_ptr<Call> call;
  std::shared_ptr<memory::Account> account;
  const absl::Status entered = memory::CatchNoMemory([&] {
    if (!gate_.Enter()) return StoppingError();
    Pass pass(&gate_);
    account = peers_.AccountOf(*context);
    call = std::make_shared<Call>(std::move(pass), stalls_, *context, response);
    return absl::OkStatus();
  });
  if (!entered.ok()) return FinishNow(*context, ToGrpc(entered));
  call->Start(engine_, SteadyDeadline(context->raw_deadline()), std::move(account), *request);
  return call->ReactorFor(*context);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* AttentionService::StreamAttention(
    grpc::CallbackServerContext* context) {
  return MakeAttentionStream(engine_, gate_, streams_, stalls_, peers_, *context);
}

}  // namespace attnd::server
