#include "client/src/compute_call.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "client/src/async_runtime.h"
#include "client/src/context.h"
#include "client/src/decode.h"
#include "client/src/encode.h"
#include "client/src/methods.h"
#include "client/src/status.h"
#include "client/src/unary.h"

namespace attnd::client {
namespace {

absl::StatusOr<ComputeReply> Decode(const grpc::Status& status, grpc::ByteBuffer& bytes, const ComputeRequest& request,
                                    const Shape& shape, const WireFields& fields) {
  if (!status.ok()) return FromGrpc(status);
  return DecodeReply(bytes, request, shape, fields);
}

// A call that completes when two things have happened, in either order: gRPC has reported its end, and the last slice
// that borrows the caller's memory was destroyed. Owns itself (`self_`) from Start to its end.
class LaterCall : public AsyncRuntime::Event, public std::enable_shared_from_this<LaterCall> {
 public:
  LaterCall(ComputeRequest request, const Shape& shape, const WireFields& fields, ComputeCallback done)
      : request_(std::move(request)), shape_(shape), fields_(fields), done_(std::move(done)) {}

  void Start(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<grpc::ClientContext> context) {
    self_ = shared_from_this();
    context_ = std::move(context);
    AsyncRuntime& runtime = AsyncRuntime::Get();
    // The slices share this pointer, so its deleter runs when the last of them is destroyed. It points to nothing.
    std::shared_ptr<const void> loan(nullptr, [call = self_](std::nullptr_t) { call->MemoryReturned(); });
    rpc_ = StartUnary(channel, context_.get(), method::kComputeAttention,
                      EncodeRequest(request_, shape_, loan, fields_), runtime.queue());
    rpc_->Finish(&bytes_, &status_, static_cast<AsyncRuntime::Event*>(this));
  }

  // gRPC reports the call's end.
  void Run(bool /*ok*/) override {
    rpc_.reset();
    context_.reset();  // destroys gRPC's call and what it still holds
    const std::shared_ptr<LaterCall> self = std::move(self_);
    {
      absl::MutexLock lock(&mutex_);
      ended_ = true;
      if (!memory_returned_) return;
    }
    Complete();
  }

 private:
  // Runs on the gRPC thread that destroyed the last slice, so it must not run the caller's code.
  void MemoryReturned() {
    {
      absl::MutexLock lock(&mutex_);
      memory_returned_ = true;
      if (!ended_) return;
    }
    AsyncRuntime::Get().Post([self = shared_from_this()] { self->Complete(); });
  }

  void Complete() {
    ComputeCallback done = std::move(done_);
    done(Decode(status_, bytes_, request_, shape_, fields_));
  }

  ComputeRequest request_;
  const Shape shape_;
  const WireFields fields_;
  ComputeCallback done_;
  std::shared_ptr<LaterCall> self_;
  std::shared_ptr<grpc::ClientContext> context_;
  std::unique_ptr<UnaryRpc> rpc_;
  grpc::ByteBuffer bytes_;
  grpc::Status status_;
  absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool memory_returned_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::StatusOr<ComputeReply> ComputeNow(const std::shared_ptr<grpc::Channel>& channel, const ComputeRequest& request,
                                        const Shape& shape, const WireFields& fields, const CallOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::ClientContext>> context = MakeContext(options);
  if (!context.ok()) return context.status();

  grpc::ByteBuffer bytes;
  absl::Notification memory_returned;
  std::shared_ptr<const void> loan(nullptr, [&](std::nullptr_t) { memory_returned.Notify(); });
  grpc::ByteBuffer encoded = EncodeRequest(request, shape, loan, fields);
  loan.reset();
  const grpc::Status status = CallUnary(channel, context->get(), method::kComputeAttention, &encoded, &bytes);
  context->reset();  // destroys gRPC's call and what it still holds
  memory_returned.WaitForNotification();
  return Decode(status, bytes, request, shape, fields);
}

void ComputeLater(const std::shared_ptr<grpc::Channel>& channel, ComputeRequest request, const Shape& shape,
                  const WireFields& fields, const CallOptions& options, ComputeCallback done) {
  absl::StatusOr<std::shared_ptr<grpc::ClientContext>> context = MakeContext(options);
  if (!context.ok()) return done(context.status());
  std::make_shared<LaterCall>(std::move(request), shape, fields, std::move(done))->Start(channel, *std::move(context));
}

}  // namespace attnd::client
