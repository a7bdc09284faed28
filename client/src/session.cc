#include "client/src/session.h"

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/error_detail.h"
#include "client/src/context.h"
#include "client/src/methods.h"
#include "client/src/process.h"
#include "client/src/session_messages.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;
using Rpc = grpc::ClientAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

// Beyond a step's time until its session is given up.
constexpr absl::Duration kGrace = absl::Seconds(5);

// One gRPC stream, driven by the thread that calls. After an error it is over. Not thread-safe.
class Stream {
 public:
  Stream(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<grpc::ClientContext> context,
         absl::Time deadline)
      : context_(std::move(context)),
        rpc_(Stub(channel).PrepareCall(context_.get(), method::kAttendSession, &queue_)),
        deadline_(deadline) {
    rpc_->StartCall(nullptr);
    if (!Await()) Fail();
  }
  ~Stream() {
    if (ended_.ok()) {
      context_->TryCancel();
      Fail();
    }
    queue_.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) continue;
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  const absl::Status& ended() const { return ended_; }

  // What is not answered by then ends the stream with DEADLINE_EXCEEDED.
  void SetDeadline(absl::Time deadline) { deadline_ = deadline; }

  absl::Status Write(const grpc::ByteBuffer& message) {
    rpc_->Write(message, nullptr);
    if (!Await()) Fail();
    return ended_;
  }
  absl::Status Read(grpc::ByteBuffer& message) {
    rpc_->Read(&message, nullptr);
    if (!Await()) Fail();
    return ended_;
  }
  // Ends it for this reason.
  void End(const absl::Status& status) {
    context_->TryCancel();
    Fail();
    ended_ = status;
  }
  // Says that nothing more comes, and waits for the server's end.
  absl::Status Close() {
    rpc_->WritesDone(nullptr);
    Await();
    grpc::ByteBuffer rest;
    do {
      rest.Clear();
      rpc_->Read(&rest, nullptr);
    } while (Await());
    grpc::Status status;
    rpc_->Finish(&status, nullptr);
    Await();
    ended_ = absl::FailedPreconditionError("the session is closed");
    return FromGrpc(status);
  }

 private:
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    if (deadline_ < absl::InfiniteFuture()) {
      const auto next = queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(deadline_));
      if (next == grpc::CompletionQueue::GOT_EVENT) return ok;
      expired_ = true;
      context_->TryCancel();
    }
    return queue_.Next(&tag, &ok) && ok;
  }
  // Fetches the server's word on why the stream is over.
  void Fail() {
    deadline_ = absl::InfiniteFuture();
    grpc::Status status;
    rpc_->Finish(&status, nullptr);
    Await();
    ended_ = expired_ ? absl::DeadlineExceededError("the server did not answer in time") : FromGrpc(status);
    if (ended_.ok()) ended_ = absl::InternalError("the server ended the session's stream before it had answered");
  }

  const std::shared_ptr<grpc::ClientContext> context_;
  grpc::CompletionQueue queue_;
  const std::unique_ptr<Rpc> rpc_;
  absl::Time deadline_ = absl::InfiniteFuture();
  bool expired_ = false;
  absl::Status ended_;
};

class GrpcSession final : public Session {
 public:
  GrpcSession(std::unique_ptr<Stream> stream, std::vector<SessionLayer> layers, SessionFacts facts)
      : layers_(std::move(layers)), facts_(std::move(facts)), stream_(std::move(stream)) {}
  ~GrpcSession() override {
    // In a forked child the stream is the parent's.
    if (Forked()) static_cast<void>(stream_.release());
  }

  const SessionFacts& facts() const override { return facts_; }

  absl::StatusOr<StepReply> Step(const StepRequest& request) override {
    if (auto s = CheckProcess(); !s.ok()) return s;
    if (request.layer < 0 || request.layer >= static_cast<std::int64_t>(layers_.size())) {
      return ErrorWithDetail(
          absl::StatusCode::kInvalidArgument,
          {"layer", absl::StrCat("0 to ", static_cast<std::int64_t>(layers_.size()) - 1), absl::StrCat(request.layer)});
    }
    absl::MutexLock lock(&mutex_);
    if (!stream_->ended().ok()) return stream_->ended();
    const absl::StatusOr<grpc::ByteBuffer> message = EncodeStep(request, next_step_);
    if (!message.ok()) return message.status();
    // The server keeps the step's time; this is for one that answers nothing any more.
    stream_->SetDeadline(absl::Now() + request.timeout + kGrace);
    absl::StatusOr<SessionAnswer> answer = Ask(*message);
    stream_->SetDeadline(absl::InfiniteFuture());
    if (!answer.ok()) return answer.status();
    if (!answer->status.ok()) return answer->status;
    ++next_step_;
    if (auto s = FitReply(request, layers_[static_cast<std::size_t>(request.layer)], answer->reply); !s.ok()) return s;
    return std::move(answer->reply);
  }

  std::optional<absl::Duration> going_away() const override {
    absl::MutexLock lock(&mutex_);
    return going_away_;
  }

  absl::Status Close() override {
    if (auto s = CheckProcess(); !s.ok()) return s;
    absl::MutexLock lock(&mutex_);
    return stream_->ended().ok() ? stream_->Close() : absl::OkStatus();
  }

 private:
  // The answer to the step that is next. Any error ends the stream.
  absl::StatusOr<SessionAnswer> Ask(const grpc::ByteBuffer& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (auto s = stream_->Write(message); !s.ok()) return s;
    for (;;) {
      grpc::ByteBuffer bytes;
      if (auto s = stream_->Read(bytes); !s.ok()) return s;
      absl::StatusOr<SessionAnswer> answer = DecodeAnswer(bytes);
      if (answer.ok() && answer->going_away.has_value()) {
        going_away_ = answer->going_away;
        continue;
      }
      if (answer.ok() && answer->step != next_step_) {
        answer = absl::InternalError("the server's reply is not an answer to the step: it is to another one");
      }
      if (!answer.ok()) stream_->End(answer.status());
      return answer;
    }
  }

  const std::vector<SessionLayer> layers_;
  const SessionFacts facts_;
  mutable absl::Mutex mutex_;
  std::unique_ptr<Stream> stream_;
  std::uint64_t next_step_ ABSL_GUARDED_BY(mutex_) = 1;
  std::optional<absl::Duration> going_away_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> OpenSession(const std::shared_ptr<grpc::Channel>& channel,
                                                     const SessionRequest& request, const CallOptions& options) {
  // A deadline of gRPC's would be that of the whole stream.
  CallOptions without_deadline = options;
  without_deadline.deadline = absl::InfiniteFuture();
  absl::StatusOr<std::shared_ptr<grpc::ClientContext>> context = MakeContext(without_deadline);
  if (!context.ok()) return context.status();
  auto stream = std::make_unique<Stream>(channel, *std::move(context), options.deadline);
  if (!stream->ended().ok()) return stream->ended();
  if (auto s = stream->Write(EncodeOpening(request)); !s.ok()) return s;
  grpc::ByteBuffer bytes;
  if (auto s = stream->Read(bytes); !s.ok()) return s;
  absl::StatusOr<SessionAnswer> answer = DecodeAnswer(bytes);
  if (!answer.ok()) return answer.status();
  if (!answer->opened.has_value()) {
    return absl::InternalError("the server's reply is not an answer to the opening of a session");
  }
  stream->SetDeadline(absl::InfiniteFuture());
  return std::unique_ptr<Session>(
      std::make_unique<GrpcSession>(std::move(stream), request.layers, *std::move(answer->opened)));
}

}  // namespace attnd::client
