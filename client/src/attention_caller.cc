#include "client/src/attention_caller.h"

#include <unistd.h>

#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attnd/error_detail.h"
#include "client/src/async_runtime.h"
#include "client/src/compute_call.h"
#include "client/src/local_mux.h"
#include "client/src/process.h"

namespace attnd::client {
namespace {

// How often a call may be repeated because of what it showed about the server. After that it is sent as one gRPC
// message.
constexpr int kMaxLessons = 2;

// How often a call may find the connection closed before it was sent. After that it uses gRPC.
constexpr int kMaxReconnects = 10;

// Results larger than this, and everything that follows an error, are handled on a thread of AsyncRuntime, so that the
// thread that reads replies can continue.
constexpr std::int64_t kLargeCopy = 256 << 10;

// Whether the server does not know a region any more: it was restarted, or the connection that registered it broke.
bool IsLostRegion(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return status.code() == absl::StatusCode::kFailedPrecondition && detail.has_value() &&
         absl::StrContains(detail->field, "_shared");
}

}  // namespace

struct AttentionCaller::LaterCall {
  ComputeRequest request;
  Shape shape;
  CallOptions options;
  ComputeCallback done;
  Tries tries;
  int lessons = 0;
  int reconnects = 0;
  std::optional<Staged> staged;
};

AttentionCaller::AttentionCaller(std::shared_ptr<RetryPolicy> retry, std::shared_ptr<SharedMemory> memory,
                                 StreamPlan plan, std::shared_ptr<LocalCalls> local, std::shared_ptr<LocalMux> mux)
    : retry_(std::move(retry)),
      memory_(std::move(memory)),
      staging_(memory_ == nullptr ? nullptr : std::make_shared<StagingPool>(memory_)),
      local_(std::move(local)),
      mux_(std::move(mux)),
      plan_(plan) {}

AttentionCaller::~AttentionCaller() {
  // A forked child does not have this thread, and another thread of its parent may have held the lock.
  if (mux_ != nullptr && !Forked()) mux_->Stop();
}

bool AttentionCaller::InPieces(const Shape& shape) const {
  const std::int64_t bytes = shape.q_bytes + shape.k_bytes + shape.v_bytes + shape.output_bytes;
  return shape.cuttable && bytes >= 2 * plan_.piece_bytes && shape.batch * shape.kv_heads > 1 &&
         !streams_unknown_.load();
}

bool AttentionCaller::Learn(const absl::Status& status, bool shared, bool streamed) {
  if (shared && IsLostRegion(status)) {
    memory_->Forget();
    return true;
  }
  if (streamed && status.code() == absl::StatusCode::kUnimplemented) {
    streams_unknown_.store(true);
    return true;
  }
  return streamed && status.code() == absl::StatusCode::kAborted;
}

absl::StatusOr<ComputeReply> AttentionCaller::Compute(const ComputeRequest& request, const CallOptions& options) {
  const absl::StatusOr<Shape> shape = CheckRequest(request);
  if (!shape.ok()) return shape.status();
  Tries tries(retry_, options);
  for (int lessons = 0;;) {
    const bool plain = lessons == kMaxLessons;
    bool shared = false, streamed = false;
    std::optional<absl::StatusOr<ComputeReply>> reply;
    // A datagram has no metadata.
    if (!plain && local_ != nullptr && options.metadata.empty()) reply = ComputeLocal(request, *shape, options, shared);
    if (!reply.has_value()) reply = ComputeGrpc(request, *shape, options, plain, shared, streamed);
    if (reply->ok()) {
      tries.Answered();
      return *std::move(reply);
    }
    if (!plain && Learn(reply->status(), shared, streamed)) {
      ++lessons;
      continue;
    }
    if (auto end = tries.AwaitNext(reply->status())) return *std::move(end);
  }
}

std::optional<absl::StatusOr<ComputeReply>> AttentionCaller::ComputeLocal(const ComputeRequest& request,
                                                                          const Shape& shape,
                                                                          const CallOptions& options, bool& shared) {
  for (int reconnects = 0; reconnects <= kMaxReconnects; ++reconnects) {
    std::shared_ptr<LocalConnection> connection = local_->Take(options);
    if (connection == nullptr) break;
    retry_->NoteConnected();
    Staged staged = Staged::MakeLocal(staging_, request, shape, options.deadline);
    LocalConnection::Result result = connection->Call(request, shape, staged.fields(), options);
    if (result.sent == LocalConnection::Sent::kGone) {
      std::move(staged).Unused();
      local_->DropAll(std::move(connection));
      // The server has probably stopped, and with it its registered regions.
      if (memory_ != nullptr) memory_->Check();
      continue;
    }
    if (result.silent) {
      local_->DropAll(std::move(connection), LocalCalls::kRest);
    } else {
      result.usable ? local_->Put(std::move(connection)) : local_->Drop(std::move(connection));
    }
    if (result.sent == LocalConnection::Sent::kTooLarge) {
      std::move(staged).Unused();
      return std::nullopt;
    }
    shared = staged.any();
    if (result.reply.ok()) result.reply->transport = Transport::kLocal;
    return std::move(staged).Finish(std::move(result.reply), request, shape);
  }
  return std::nullopt;
}

absl::StatusOr<ComputeReply> AttentionCaller::ComputeGrpc(const ComputeRequest& request, const Shape& shape,
                                                          const CallOptions& options, bool plain, bool& shared,
                                                          bool& streamed) {
  std::optional<Staged> staged = plain ? std::nullopt : Staged::MakeNow(staging_, request, shape, options.deadline);
  shared = staged.has_value();
  streamed = !plain && !shared && InPieces(shape);
  absl::StatusOr<ComputeReply> reply =
      streamed ? StreamNow(retry_->channel, request, shape, plan_, options)
               : ComputeNow(retry_->channel, request, shape, shared ? staged->fields() : WireFields(), options);
  if (!shared) return reply;
  if (reply.ok()) reply->transport = Transport::kSharedMemory;
  return std::move(*staged).Finish(std::move(reply), request, shape);
}

void AttentionCaller::ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) {
  const absl::StatusOr<Shape> shape = CheckRequest(request);
  if (!shape.ok()) return done(shape.status());
  Tries tries(retry_, options);
  Attempt(std::make_shared<LaterCall>(LaterCall{std::move(request), *shape, std::move(options), std::move(done),
                                                std::move(tries), 0, 0, std::nullopt}));
}

void AttentionCaller::Attempt(std::shared_ptr<LaterCall> call) {
  // A datagram has no metadata.
  if (mux_ == nullptr || call->lessons == kMaxLessons || !call->options.metadata.empty()) {
    return AttemptGrpc(std::move(call));
  }
  const absl::Time deadline = call->options.deadline;
  // Tensors are copied on a thread of the runtime, so that the thread that reads replies is not held up.
  auto settled = [self = shared_from_this(), call] {
    AsyncRuntime::Get().Post([self, call] { self->AttemptLocal(call); });
  };
  if (mux_->Settle(deadline, std::move(settled))) AttemptLocal(std::move(call));
}

void AttentionCaller::AttemptLocal(std::shared_ptr<LaterCall> call) {
  const CallOptions& options = call->options;
  // With gRPC's messages.
  if (options.cancellation != nullptr && options.cancellation->cancelled()) {
    return Ended(std::move(call), false, false, absl::CancelledError("CANCELLED"));
  }
  if (options.deadline <= absl::Now()) {
    return Ended(std::move(call), false, false, absl::DeadlineExceededError("Deadline Exceeded"));
  }
  if (!mux_->Offered()) return AttemptGrpc(std::move(call));
  retry_->NoteConnected();
  Staged::MakeLocalLater(
      staging_, call->request, call->shape, options.deadline,
      [self = shared_from_this(), call](Staged staged) { self->SendLocal(call, std::move(staged)); });
}

void AttentionCaller::SendLocal(std::shared_ptr<LaterCall> call, Staged staged) {
  call->staged = std::move(staged);
  ComputeCallback ended = [self = shared_from_this(), call](absl::StatusOr<ComputeReply> reply) {
    const bool shared = call->staged->any();
    if (reply.ok() && (!call->staged->copies() || call->shape.output_bytes <= kLargeCopy)) {
      return self->Ended(call, shared, false, std::move(reply));
    }
    AsyncRuntime::Get().Post([self, call, shared, reply = std::move(reply)]() mutable {
      self->Ended(call, shared, false, std::move(reply));
    });
  };
  // `call` keeps request and fields alive until the call has ended.
  const LocalMux::Started started =
      mux_->Start(call->request, call->shape, call->staged->fields(), call->options, std::move(ended));
  if (started == LocalMux::Started::kYes) return;
  // Nothing was sent, so this uses up no retry.
  std::move(*call->staged).Unused();
  call->staged.reset();
  if (started == LocalMux::Started::kNoRoom || ++call->reconnects > kMaxReconnects) return AttemptGrpc(std::move(call));
  if (memory_ != nullptr) memory_->Check();  // the server may have stopped, and with it its regions
  Attempt(std::move(call));
}

void AttentionCaller::AttemptGrpc(std::shared_ptr<LaterCall> call) {
  if (call->lessons == kMaxLessons || staging_ == nullptr) return Send(std::move(call), std::nullopt);
  auto made = [self = shared_from_this(), call](std::optional<Staged> staged) { self->Send(call, std::move(staged)); };
  Staged::MakeLater(staging_, call->request, call->shape, call->options.deadline, std::move(made));
}

void AttentionCaller::Send(std::shared_ptr<LaterCall> call, std::optional<Staged> staged) {
  call->staged = std::move(staged);
  const bool shared = call->staged.has_value();
  const bool streamed = call->lessons < kMaxLessons && !shared && InPieces(call->shape);
  ComputeCallback ended = [self = shared_from_this(), call, shared, streamed](absl::StatusOr<ComputeReply> reply) {
    self->Ended(call, shared, streamed, std::move(reply));
  };
  if (streamed) {
    StreamLater(retry_->channel, call->request, call->shape, plan_, call->options, std::move(ended));
  } else {
    ComputeLater(retry_->channel, call->request, call->shape, shared ? call->staged->fields() : WireFields(),
                 call->options, std::move(ended));
  }
}

void AttentionCaller::Ended(std::shared_ptr<LaterCall> call, bool shared, bool streamed,
                            absl::StatusOr<ComputeReply> reply) {
  if (shared && reply.ok() && reply->transport == Transport::kGrpc) reply->transport = Transport::kSharedMemory;
  if (call->staged.has_value()) reply = std::move(*call->staged).Finish(std::move(reply), call->request, call->shape);
  if (reply.ok()) {
    call->tries.Answered();
    return call->done(std::move(reply));
  }
  if (call->lessons < kMaxLessons && Learn(reply.status(), shared, streamed)) {
    ++call->lessons;
    return Attempt(std::move(call));
  }
  if (!call->tries.Again(reply.status())) return call->done(call->tries.Explain(reply.status()));
  AttemptWhenTime(std::move(call));
}

void AttentionCaller::AttemptWhenTime(std::shared_ptr<LaterCall> call) {
  if (const std::optional<absl::Duration> wait = call->tries.Wait()) {
    AsyncRuntime::Get().PostAfter(*wait,
                                  [self = shared_from_this(), call = std::move(call)] { self->AttemptWhenTime(call); });
    return;
  }
  if (call->tries.over()) return call->done(call->tries.Explain(call->tries.last()));
  Attempt(std::move(call));
}

absl::StatusOr<SharedBuffer> AttentionCaller::AllocateBuffer(std::size_t bytes) {
  if (memory_ != nullptr) {
    absl::StatusOr<std::shared_ptr<void>> memory = memory_->Allocate(bytes, SharedMemory::Pages::kHuge);
    if (!memory.ok()) return memory.status();
    return SharedBuffer(*std::move(memory), bytes);
  }
  const auto page = static_cast<std::align_val_t>(sysconf(_SC_PAGESIZE));
  void* const data = ::operator new(bytes, page, std::nothrow);
  if (data == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes"));
  std::memset(data, 0, bytes);
  return SharedBuffer(std::shared_ptr<void>(data, [page](void* p) { ::operator delete(p, page); }), bytes);
}

}  // namespace attnd::client
