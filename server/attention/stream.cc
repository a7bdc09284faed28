#include "server/attention/stream.h"

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/attention/result_size.h"
#include "server/attention/stream_state.h"
#include "server/rpc/deadline.h"
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
  Pass pass;
};

// A piece from then until its answer is with the transport. The message goes before its lease, and that before the
// pass.
struct Answer {
  Pass pass;
  memory::Ticket lease;
  grpc::ByteBuffer message;
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
    SetError(result.status(), header);
    return {{}, {}, EncodeReply(header, {}, {})};
  }
  *header.mutable_result() = std::move(result->header);
  return {{}, std::move(result->lease), EncodeReply(header, std::move(result->log_sum_exp), std::move(result->output))};
}

// Drives a StreamState: whatever happens is told to it under the lock, and what it decides is then done without. The
// stream ends when nothing is read, computed or written any more, so nothing of this outlives it.
class Stream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>, public JobStream {
 public:
  Stream(AttentionEngine& engine, CallGate& gate, JobStreams& streams, StallWatch& stalls,
         std::shared_ptr<memory::Account> account, grpc::CallbackServerContext& context)
      : engine_(engine), gate_(gate), streams_(streams), stalls_(stalls), call_(context.c_call()) {
    options_.account = std::move(account);
    options_.deadline = SteadyDeadline(context.raw_deadline());
  }

  // Once, before gRPC has the reactor.
  void Start(const std::shared_ptr<Stream>& self) {
    self_ = self;
    streams_.Add(self);
    Update([] {});
  }

  void EndIfQuietFor(std::chrono::steady_clock::duration quiet) override {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (state_.busy() || schedule::Clock::now() - quiet_since_ < quiet) return;
      state_.EndQuietly(StoppingError());
    });
  }

  void OnReadDone(bool ok) override {
    if (ok) return Take();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.AllRead(); });
  }

  void OnWriteDone(bool ok) override {
    stalls_.End(write_);
    Answer sent;  // freed without the lock
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      sent = std::move(outgoing_);
      state_.Written(ok);
    });
  }

  void OnCancel() override {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      state_.Fail(absl::CancelledError("the caller cancelled the stream"));
    });
  }

  void OnDone() override {
    stalls_.End(write_);
    streams_.Remove(this);
    const std::shared_ptr<Stream> self = std::move(self_);
  }

 private:
  // A step, with what it needs of the members that the lock guards.
  struct Next {
    StreamState::Step step;
    std::shared_ptr<Piece> piece;  // to be computed, or dropped
    std::map<std::uint64_t, Answer> dropped;
    grpc::Status status;  // of the end
  };

  // After this the reactor may be gone, and after the lock already if there is nothing to do: another thread may then
  // have ended the stream.
  template <typename Change>
  void Update(Change change) {
    Next next;
    {
      absl::MutexLock lock(&mutex_);
      const bool was_busy = state_.busy();
      change();
      next = Decide();
      if (was_busy || state_.busy()) quiet_since_ = schedule::Clock::now();
    }
    while (next.step.anything()) {
      if (next.step.finish) return End(next);
      Do(next);
      next = {};  // freed without the lock
      absl::MutexLock lock(&mutex_);
      state_.Done();
      next = Decide();
    }
  }

  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Next next;
    next.step = state_.Next();
    if (next.step.give_up) {
      next.dropped.swap(answers_);
      next.piece = std::move(waiting_);
    }
    if (next.step.write.has_value()) {
      const auto answer = answers_.find(*next.step.write);
      outgoing_ = std::move(answer->second);
      answers_.erase(answer);
    }
    if (next.step.compute.has_value()) next.piece = std::move(waiting_);
    if (next.step.finish) next.status = ToGrpc(state_.failure());
    return next;
  }

  // A step that does not finish the stream, which keeps the reactor until StreamState::Done.
  void Do(const Next& next) {
    if (next.step.give_up) options_.cancel.Cancel();
    if (next.step.write.has_value()) {
      Watch();
      StartWrite(&outgoing_.message);
    }
    if (next.step.compute.has_value()) Compute(next.piece);
    if (next.step.read) StartRead(&incoming_);
  }

  void End(const Next& next) {
    Watch();
    if (next.step.write.has_value()) {
      StartWriteAndFinish(&outgoing_.message, grpc::WriteOptions(), next.status);
    } else {
      Finish(next.status);
    }
  }

  // What is written from now on is to be taken in time.
  void Watch() { stalls_.Begin(write_, call_, static_cast<std::int64_t>(outgoing_.message.Length())); }

  // Takes the message that has arrived.
  void Take() {
    StreamState::Piece counted;
    counted.message_bytes = static_cast<std::int64_t>(incoming_.Length());
    absl::StatusOr<Decoded<v1::StreamAttentionRequest>> decoded =
        Decode<v1::StreamAttentionRequest>(incoming_, engine_.limits().max_header_bytes);
    incoming_.Clear();
    if (!decoded.ok()) {
      return Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.ReadFailed(decoded.status()); });
    }
    counted.id = decoded->header.id();
    counted.result_bytes = SentResultBytes(decoded->header.call(), engine_.limits().max_result_bytes);
    auto piece = std::make_shared<Piece>();
    piece->request = *std::move(decoded);
    gate_.EnterMore();
    piece->pass.reset(&gate_);
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      switch (state_.Arrived(counted)) {
        case StreamState::Arrival::kTaken:
          waiting_ = std::move(piece);
          break;
        case StreamState::Arrival::kIdInUse:
          state_.Fail(InvalidField("id", "one that no unanswered piece has", counted.id));
          break;
        case StreamState::Arrival::kOver:
          break;
      }
    });
  }

  void Compute(const std::shared_ptr<Piece>& piece) {
    const v1::ComputeAttentionRequest& call = piece->request.header.call();
    if (absl::Status status = CheckCall(call); !status.ok()) return Leave(*piece, status);
    engine_.Compute(call, piece->request.tensors(), options_,
                    [this, piece](absl::StatusOr<AttentionResult> result) { Leave(*piece, std::move(result)); });
  }

  void Leave(Piece& piece, absl::StatusOr<AttentionResult> result) {
    const std::uint64_t id = piece.request.header.id();
    Answer answer = MakeAnswer(id, std::move(result));  // freed without the lock if nobody wants it
    answer.pass = std::move(piece.pass);
    piece.request = {};  // gives the message's slices back
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const auto bytes = static_cast<std::int64_t>(answer.message.Length());
      if (state_.Computed(id, bytes)) answers_.emplace(id, std::move(answer));
    });
  }

  AttentionEngine& engine_;
  CallGate& gate_;
  JobStreams& streams_;
  StallWatch& stalls_;
  grpc_call* const call_;         // until OnDone
  std::shared_ptr<Stream> self_;  // until gRPC is done with the reactor
  ComputeOptions options_;        // constant; its token is shared by all pieces
  grpc::ByteBuffer incoming_;     // the read's, while one is under way
  Answer outgoing_;               // the write's
  StallWatch::Write write_;       // likewise

  absl::Mutex mutex_;
  StreamState state_ ABSL_GUARDED_BY(mutex_){kStreamWindowBytes};
  std::shared_ptr<Piece> waiting_ ABSL_GUARDED_BY(mutex_);           // for room in the window
  std::map<std::uint64_t, Answer> answers_ ABSL_GUARDED_BY(mutex_);  // that wait for their write
  schedule::Clock::time_point quiet_since_ ABSL_GUARDED_BY(mutex_) = schedule::Clock::now();
};

}  // namespace

void JobStreams::Add(const std::shared_ptr<JobStream>& stream) {
  absl::MutexLock lock(&mutex_);
  streams_.emplace(stream.get(), stream);
}

void JobStreams::Remove(const JobStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void JobStreams::EndThoseQuietFor(std::chrono::steady_clock::duration quiet) {
  // Asked without the lock, since an end may remove the stream at once.
  std::vector<std::shared_ptr<JobStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, stream] : streams_) streams.push_back(stream.lock());
  }
  for (const std::shared_ptr<JobStream>& stream : streams) {
    if (stream != nullptr) stream->EndIfQuietFor(quiet);
  }
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeAttentionStream(
    AttentionEngine& engine, CallGate& gate, JobStreams& streams, StallWatch& stalls,
    std::shared_ptr<memory::Account> account, grpc::CallbackServerContext& context) {
  const auto stream = std::make_shared<Stream>(engine, gate, streams, stalls, std::move(account), context);
  stream->Start(stream);
  return stream.get();
}

}  // namespace attnd::server
