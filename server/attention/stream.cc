#include "server/attention/stream.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// A way through the gate, left when this goes.
struct LeaveGate {
  void operator()(CallGate* gate) const { gate->Leave(); }
};
using Pass = std::unique_ptr<CallGate, LeaveGate>;

// A piece from its arrival until it is computed.
struct Piece {
  Decoded<v1::StreamAttentionRequest> request;
  std::size_t bytes;  // of the message
  Pass pass;
};

// A piece from then until its answer is with the transport.
struct Answer {
  std::uint64_t id = 0;
  grpc::ByteBuffer message;
  memory::Budget::Lease lease;
  Pass pass;
};

absl::Status CheckCall(const v1::ComputeAttentionRequest& call) {
  const std::size_t bytes = call.q().size() + call.k().size() + call.v().size();
  if (bytes == 0) return absl::OkStatus();
  return InvalidField("call", "no q, k and v (they stand beside it)", absl::StrCat(bytes, " bytes of them"));
}

Answer MakeAnswer(std::uint64_t id, absl::StatusOr<AttentionResult> result) {
  v1::StreamAttentionResponse header;
  header.set_id(id);
  if (!result.ok()) {
    const grpc::Status status = ToGrpc(result.status());  // which bounds the message
    header.set_code(status.error_code());
    header.set_message(status.error_message());
    if (auto detail = DetailOf(result.status()); detail.has_value()) *header.mutable_detail() = *std::move(detail);
    return {id, EncodeReply(header, {}, {}), {}, {}};
  }
  *header.mutable_result() = std::move(result->header);
  return {
      id, EncodeReply(header, std::move(result->log_sum_exp), std::move(result->output)), std::move(result->lease), {}};
}

// Pieces are read one at a time and computed in any number; answers are written one at a time, as they come. Whatever
// happens changes the state and decides what is to be done next, both under the lock; what was decided is then done
// without it. The stream ends when nothing is read, computed or written any more, so nothing of this outlives it.
class Stream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Stream(AttentionEngine& engine, CallGate& gate, grpc::CallbackServerContext& context) : engine_(engine), gate_(gate) {
    options_.deadline = absl::FromChrono(context.deadline());
    StartRead(&incoming_);
  }

  void OnReadDone(bool ok) override {
    if (ok) Take();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      if (!ok) all_read_ = true;
    });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) options_.cancel.Cancel();
    Answer sent;  // freed without the lock
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      sent = std::move(outgoing_);
      writing_ = false;
      held_bytes_ -= outgoing_bytes_;
      if (!ok) failure_.Update(absl::CancelledError("the caller reads no more"));
    });
  }

  void OnCancel() override {
    options_.cancel.Cancel();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      failure_.Update(absl::CancelledError("the caller cancelled the stream"));
    });
  }

  void OnDone() override { delete this; }

 private:
  // What to do, as decided under the lock.
  struct Next {
    bool read = false;
    bool write = false;
    bool finish = false;         // after the write, if there is one
    std::deque<Answer> dropped;  // freed without the lock

    bool anything() const { return read || write || finish; }
  };

  // After this the reactor may be gone, and after the lock already if there is nothing to do: another thread may then
  // have ended the stream.
  template <typename Change>
  void Update(Change change) {
    Next next;
    {
      absl::MutexLock lock(&mutex_);
      change();
      next = Decide();
    }
    if (next.anything()) Do(next);
  }

  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Next next;
    if (finished_) return next;
    if (!failure_.ok()) next.dropped.swap(answers_);
    if (!writing_ && !answers_.empty()) {
      next.write = writing_ = true;
      outgoing_ = std::move(answers_.front());
      outgoing_bytes_ = outgoing_.message.Length();
      answers_.pop_front();
      ids_.erase(outgoing_.id);
    }
    const bool may_read = !all_read_ && failure_.ok();
    if (may_read && !reading_ && held_bytes_ < kStreamWindowBytes) next.read = reading_ = true;
    const bool nothing_to_come = !may_read && !reading_ && computing_ == 0 && answers_.empty();
    // The last answer takes the stream's end along.
    if (nothing_to_come && (next.write || !writing_)) next.finish = finished_ = true;
    return next;
  }

  void Do(const Next& next) {
    if (next.write && next.finish) return StartWriteAndFinish(&outgoing_.message, grpc::WriteOptions(), FinalStatus());
    if (next.finish) return Finish(FinalStatus());
    // Each of these holds the reactor until it is done.
    if (next.write) StartWrite(&outgoing_.message);
    if (next.read) StartRead(&incoming_);
  }

  grpc::Status FinalStatus() {
    absl::MutexLock lock(&mutex_);
    return ToGrpc(failure_);
  }

  // Ends the stream with this error, if it is the first. The read that found it is still counted as under way.
  void Fail(const absl::Status& status) {
    options_.cancel.Cancel();
    absl::MutexLock lock(&mutex_);
    failure_.Update(status);
  }

  // Starts to compute the piece that has arrived.
  void Take() {
    auto piece = std::make_shared<Piece>();
    piece->bytes = incoming_.Length();
    absl::StatusOr<Decoded<v1::StreamAttentionRequest>> decoded =
        Decode<v1::StreamAttentionRequest>(incoming_, engine_.limits().max_header_bytes);
    incoming_.Clear();
    if (!decoded.ok()) return Fail(decoded.status());
    piece->request = *std::move(decoded);
    if (!Enter(*piece)) {
      return Fail(InvalidField("id", "one that no unanswered piece has", piece->request.header.id()));
    }
    if (!gate_.Enter()) return Leave(*piece, absl::UnavailableError("the server is stopping"));
    piece->pass.reset(&gate_);
    if (absl::Status status = CheckCall(piece->request.header.call()); !status.ok()) return Leave(*piece, status);
    engine_.Compute(piece->request.header.call(), piece->request.tensors(), options_,
                    [this, piece](absl::StatusOr<AttentionResult> result) { Leave(*piece, std::move(result)); });
  }

  // False if its id is in use.
  bool Enter(const Piece& piece) {
    absl::MutexLock lock(&mutex_);
    if (!ids_.insert(piece.request.header.id()).second) return false;
    ++computing_;
    held_bytes_ += piece.bytes;
    return true;
  }

  void Leave(Piece& piece, absl::StatusOr<AttentionResult> result) {
    Answer answer = MakeAnswer(piece.request.header.id(), std::move(result));
    answer.pass = std::move(piece.pass);
    piece.request = {};  // gives the message's slices back
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      held_bytes_ += answer.message.Length();
      held_bytes_ -= piece.bytes;
      answers_.push_back(std::move(answer));
      --computing_;
    });
  }

  AttentionEngine& engine_;
  CallGate& gate_;
  schedule::SubmitOptions options_;  // constant; its token is shared by all pieces
  grpc::ByteBuffer incoming_;        // the read's, while one is under way
  Answer outgoing_;                  // the write's

  absl::Mutex mutex_;
  std::set<std::uint64_t> ids_ ABSL_GUARDED_BY(mutex_);
  std::deque<Answer> answers_ ABSL_GUARDED_BY(mutex_);
  std::size_t computing_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // by what is computed, waits or is written
  std::size_t outgoing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeAttentionStream(AttentionEngine& engine,
                                                                                 CallGate& gate,
                                                                                 grpc::CallbackServerContext& context) {
  return new Stream(engine, gate, context);
}

}  // namespace attnd::server
