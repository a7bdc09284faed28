#include "server/attention/unary_call.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "memory/no_memory.h"
#include "server/attention/too_long.h"
#include "server/rpc/deadline.h"
#include "server/rpc/pushback.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// Lives until OnDone, which never comes before Finish. The steps follow each other: intake, read, computation, end.
class UnaryCall final : public RawReactor, public schedule::Intake::Entry {
 public:
  UnaryCall(AttentionEngine& engine, schedule::Intake& intake, StallWatch& stalls, Pass pass,
            std::shared_ptr<memory::Account> account, grpc::CallbackServerContext& context)
      : engine_(engine), intake_(intake), stalls_(stalls), context_(context), pass_(std::move(pass)) {
    options_.deadline = SteadyDeadline(context.raw_deadline());
    options_.account = std::move(account);
  }

  // Call once, before gRPC has the reactor, so that OnDone cannot come during the call. May throw std::bad_alloc, and
  // then nothing has begun.
  void Start() {
    schedule::TooLong too_long;
    switch (intake_.Join(*this, options_.account.get(), options_.deadline, too_long)) {
      case schedule::IntakeLine::Joined::kBegins:
        return Begin();
      case schedule::IntakeLine::Joined::kRefused:
        return Late(too_long);
      case schedule::IntakeLine::Joined::kWaits:
        return;
    }
  }

  void Begin() override {
    stalls_.BeginRead(transfer_, context_.c_call(), engine_.limits().max_request_bytes);
    StartRead(&message_);
  }

  void Late(const schedule::TooLong& too_long) override {
    End(TooLongError(too_long, options_.deadline, engine_.max_queue_time()));
  }

  void OnReadDone(bool ok) override {
    stalls_.End(transfer_);
    intake_.Received(*this);
    if (!ok) return End(NoMessage());
    AttentionEngine::Done done;
    const absl::Status decoded = memory::CatchNoMemory([&] {
      absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> request =
          Decode<v1::ComputeAttentionRequest>(message_, engine_.limits().max_header_bytes);
      if (!request.ok()) return request.status();
      request_ = *std::move(request);
      done = [this](absl::StatusOr<AttentionResult> result) { Answer(std::move(result)); };
      return absl::OkStatus();
    });
    message_.Clear();
    if (!decoded.ok()) return End(decoded);
    engine_.Compute(request_.header, request_.tensors(), options_, std::move(done));
  }

  void OnCancel() override {
    options_.cancel.Cancel();
    if (intake_.Leave(*this)) End(NoMessage());
  }

  void OnDone() override {
    stalls_.End(transfer_);
    delete this;
  }

 private:
  absl::Status NoMessage() const {
    return memory::CatchNoMemory([this] {
      if (context_.IsCancelled()) return absl::CancelledError("the caller cancelled the call");
      return InvalidField("request", "one message", "none");
    });
  }

  void Answer(absl::StatusOr<AttentionResult> result) {
    request_ = {};  // frees the message's slices
    if (!result.ok()) return End(result.status());
    result->HoldInBuffers();  // until gRPC has sent them; results in shared memory have already reached their caller
    End(memory::CatchNoMemoryIn(
        [&] { answer_ = EncodeReply(result->header, std::move(result->log_sum_exp), std::move(result->output)); }));
  }

  // Called once. gRPC sends the rest, and may destroy this at once.
  void End(const absl::Status& status) {
    pass_.reset();
    intake_.Leave(*this);
    AddPushback(context_, status);
    stalls_.Begin(transfer_, context_.c_call(), static_cast<std::int64_t>(answer_.Length()));
    if (status.ok()) {
      StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      Finish(ToGrpc(status));
    }
  }

  AttentionEngine& engine_;
  schedule::Intake& intake_;
  StallWatch& stalls_;
  grpc::CallbackServerContext& context_;
  Pass pass_;
  ComputeOptions options_;
  grpc::ByteBuffer message_;
  Decoded<v1::ComputeAttentionRequest> request_;
  grpc::ByteBuffer answer_;
  StallWatch::Transfer transfer_;  // of the request, then of the answer
};

}  // namespace

RawReactor* MakeUnaryCall(AttentionEngine& engine, schedule::Intake& intake, StallWatch& stalls, Pass pass,
                          std::shared_ptr<memory::Account> account, grpc::CallbackServerContext& context) {
  auto call = std::make_unique<UnaryCall>(engine, intake, stalls, std::move(pass), std::move(account), context);
  RawReactor* const reactor = call.get();
  call->Start();
  static_cast<void>(call.release());  // it owns itself from now on
  return reactor;
}

}  // namespace attnd::server
