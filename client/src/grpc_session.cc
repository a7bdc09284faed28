#include "client/src/grpc_session.h"

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/src/context.h"
#include "client/src/methods.h"
#include "client/src/process.h"
#include "client/src/shape.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;
using Rpc = grpc::ClientAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

// The calling thread polls the queue.
class GrpcSession final : public SessionStream {
 public:
  GrpcSession(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<grpc::ClientContext> context,
              absl::Time deadline)
      : context_(std::move(context)),
        rpc_(Stub(channel).PrepareCall(context_.get(), method::kAttendSession, &queue_)),
        deadline_(deadline) {
    rpc_->StartCall(nullptr);
    if (!Await()) Fail();
  }
  ~GrpcSession() override {
    if (ended_.ok()) {
      context_->TryCancel();
      Fail();
    }
    queue_.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) continue;
  }
  GrpcSession(const GrpcSession&) = delete;
  GrpcSession& operator=(const GrpcSession&) = delete;

  Transport transport() const override { return Transport::kGrpc; }
  const absl::Status& ended() const override { return ended_; }
  void SetDeadline(absl::Time deadline) override { deadline_ = deadline; }

  absl::Status SendOpening(const SessionRequest& request) override {
    const grpc::Slice slice(EncodeOpening(request));
    return Write(grpc::ByteBuffer(&slice, 1));
  }
  absl::Status SendStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number) override {
    const absl::StatusOr<grpc::ByteBuffer> message = EncodeStep(request, sizes, number, max_message_bytes_);
    if (!message.ok()) return message.status();
    return Write(*message);
  }
  absl::StatusOr<SessionAnswer> Receive() override {
    grpc::ByteBuffer bytes;
    rpc_->Read(&bytes, nullptr);
    if (!Await()) {
      Fail();
      return ended_;
    }
    const absl::StatusOr<SplitReply> split = Split(bytes);
    if (!split.ok()) return split.status();
    absl::StatusOr<SessionAnswer> answer = DecodeAnswer(*split);
    // Older servers do not set it.
    if (answer.ok() && answer->opened.has_value() && answer->opened->max_message_bytes > 0) {
      max_message_bytes_ = std::min(answer->opened->max_message_bytes, kMaxMessageBytes);
    }
    return answer;
  }
  void End(const absl::Status& status) override {
    context_->TryCancel();
    Fail();
    ended_ = status;
  }
  absl::Status Close() override {
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
    return expired_ ? Late() : FromGrpc(status);
  }

 private:
  static absl::Status Late() { return absl::DeadlineExceededError("the server did not answer in time"); }

  absl::Status Write(const grpc::ByteBuffer& message) {
    rpc_->Write(message, nullptr);
    if (!Await()) Fail();
    return ended_;
  }
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
  // Gets the status with which the server ended the stream.
  void Fail() {
    deadline_ = absl::InfiniteFuture();
    grpc::Status status;
    rpc_->Finish(&status, nullptr);
    Await();
    ended_ = expired_ ? Late() : FromGrpc(status);
    if (ended_.ok()) ended_ = absl::InternalError("the server ended the session's stream before it had answered");
  }

  const std::shared_ptr<grpc::ClientContext> context_;
  grpc::CompletionQueue queue_;
  const std::unique_ptr<Rpc> rpc_;
  absl::Time deadline_ = absl::InfiniteFuture();
  std::int64_t max_message_bytes_ = kMaxMessageBytes;
  bool expired_ = false;
  absl::Status ended_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<SessionStream>> StartGrpcSession(const std::shared_ptr<grpc::Channel>& channel,
                                                                const CallOptions& options) {
  // A gRPC deadline would apply to the whole stream.
  CallOptions without_deadline = options;
  without_deadline.deadline = absl::InfiniteFuture();
  absl::StatusOr<std::shared_ptr<grpc::ClientContext>> context = MakeContext(without_deadline);
  if (!context.ok()) return context.status();
  // Not deleted in a forked child: the stream belongs to the parent.
  std::shared_ptr<SessionStream> stream(new GrpcSession(channel, *std::move(context), options.deadline),
                                        [](GrpcSession* session) {
                                          if (!Forked()) delete session;
                                        });
  if (!stream->ended().ok()) return stream->ended();
  return stream;
}

}  // namespace attnd::client
