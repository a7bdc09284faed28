#include "client/src/attention_caller.h"

#include <unistd.h>

#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"
#include "client/src/compute_call.h"

namespace attnd::client {
namespace {

// How often a call may be repeated because of what was learnt of the server. The last attempt is the plainest.
constexpr int kMaxAttempts = 3;

// The server does not know a region any more: it was started anew, or the connection that registered it broke.
bool IsLostRegion(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return status.code() == absl::StatusCode::kFailedPrecondition && detail.has_value() &&
         absl::StrContains(detail->field, "_shared");
}

}  // namespace

AttentionCaller::AttentionCaller(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<SharedMemory> memory,
                                 StreamPlan plan)
    : channel_(std::move(channel)),
      memory_(std::move(memory)),
      staging_(memory_ == nullptr ? nullptr : std::make_shared<StagingPool>(memory_)),
      plan_(plan) {}

bool AttentionCaller::InPieces(const Shape& shape) const {
  const std::int64_t bytes = shape.q_bytes + shape.k_bytes + shape.v_bytes + shape.output_bytes;
  return bytes >= 2 * plan_.piece_bytes && shape.batch * shape.kv_heads > 1 && !streams_unknown_.load();
}

bool AttentionCaller::Repeat(const absl::Status& status, bool shared, bool streamed) {
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
  for (int attempt = 1;; ++attempt) {
    const bool plain = attempt == kMaxAttempts;
    std::optional<Staged> staged = plain ? std::nullopt : Staged::MakeNow(staging_, request, *shape, options.deadline);
    const bool streamed = !plain && !staged.has_value() && InPieces(*shape);
    absl::StatusOr<ComputeReply> reply =
        streamed ? StreamNow(channel_, request, *shape, plan_, options)
                 : ComputeNow(channel_, request, *shape, staged.has_value() ? staged->fields() : WireFields(), options);
    if (staged.has_value()) reply = std::move(*staged).Finish(std::move(reply), request, *shape);
    if (plain || !Repeat(reply.status(), staged.has_value(), streamed)) return reply;
  }
}

void AttentionCaller::ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) {
  const absl::StatusOr<Shape> shape = CheckRequest(request);
  if (!shape.ok()) return done(shape.status());
  Attempt(1, std::move(request), *shape, std::move(options), std::move(done));
}

void AttentionCaller::Attempt(int attempt, ComputeRequest request, const Shape& shape, CallOptions options,
                              ComputeCallback done) {
  if (attempt == kMaxAttempts || staging_ == nullptr) {
    return Send(attempt, std::nullopt, std::move(request), shape, std::move(options), std::move(done));
  }
  const auto kept = std::make_shared<ComputeRequest>(std::move(request));
  const absl::Time deadline = options.deadline;
  auto made = [self = shared_from_this(), attempt, kept, shape, options = std::move(options),
               done = std::move(done)](std::optional<Staged> staged) {
    self->Send(attempt, std::move(staged), std::move(*kept), shape, options, done);
  };
  Staged::MakeLater(staging_, *kept, shape, deadline, std::move(made));
}

void AttentionCaller::Send(int attempt, std::optional<Staged> made, ComputeRequest request, const Shape& shape,
                           CallOptions options, ComputeCallback done) {
  const bool plain = attempt == kMaxAttempts;
  const auto staged = std::make_shared<std::optional<Staged>>(std::move(made));
  const bool streamed = !plain && !staged->has_value() && InPieces(shape);
  const WireFields fields = staged->has_value() ? (*staged)->fields() : WireFields();
  ComputeCallback ended = [self = shared_from_this(), attempt, plain, staged, streamed, request, shape, options,
                           done = std::move(done)](absl::StatusOr<ComputeReply> reply) mutable {
    if (staged->has_value()) reply = std::move(**staged).Finish(std::move(reply), request, shape);
    if (plain || !self->Repeat(reply.status(), staged->has_value(), streamed)) return done(std::move(reply));
    self->Attempt(attempt + 1, std::move(request), shape, std::move(options), std::move(done));
  };
  if (streamed) {
    StreamLater(channel_, std::move(request), shape, plan_, options, std::move(ended));
  } else {
    ComputeLater(channel_, std::move(request), shape, fields, options, std::move(ended));
  }
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
