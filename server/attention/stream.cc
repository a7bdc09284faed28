#include "server/attention/stream.h"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "contract/asking.h"
#include "memory/no_memory.h"
#include "server/attention/result_size.h"
#include "server/attention/stream_state.h"
#include "server/attention/too_long.h"
#include "server/rpc/deadline.h"
#include "server/rpc/pushback.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// The answer of a piece, from its computation until the answer is with the transport. The message is destroyed before
// its reservation, and the reservation before the pass.
struct Answer {
  Pass pass;
  memory::Ticket lease;
  grpc::ByteBuffer message;
};

// Answers by the ids of their pieces. A node moves from one map to another without an allocation.
using Answers = std::map<std::uint64_t, Answer>;

// A piece from its arrival until its computation ends.
struct Piece {
  Decoded<v1::StreamAttentionRequest> request;
  Pass pass;
  Answers answer;  // its answer's node, allocated on arrival
};

absl::Status CheckCall(const v1::ComputeAttentionRequest& call) {
  const std::size_t bytes = call.q().size() + call.k().size() + call.v().size();
  if (bytes == 0) return absl::OkStatus();
  return InvalidField("call", "no q, k and v (they stand beside it)", absl::StrCat(bytes, " bytes of them"));
}

Answer MakeAnswer(std::uint64_t id, bool going_away, absl::StatusOr<AttentionResult> result) {
  v1::StreamAttentionResponse header;
  header.set_id(id);
  header.set_going_away(going_away);
  if (!result.ok()) {
    SetError(result.status(), header);
    return {{}, {}, EncodeReply(header, {}, {})};
  }
  *header.mutable_result() = std::move(result->header);
  return {{}, std::move(result->lease), EncodeReply(header, std::move(result->log_sum_exp), std::move(result->output))};
}

// Drives a StreamState: events are reported to it under the lock, and its decisions carried out without the lock. The
// stream ends once nothing is being read, computed or written, so no callback outlives this.
class Stream final : public RawReactor, public JobStream, public schedule::Intake::Entry {
 public:
  Stream(AttentionEngine& engine, CallGate& gate, schedule::Intake& intake, JobStreams& streams, StallWatch& stalls,
         std::shared_ptr<memory::Account> account, grpc::CallbackServerContext& context)
      : engine_(engine), gate_(gate), intake_(intake), streams_(streams), stalls_(stalls), context_(context) {
    options_.account = std::move(account);
    options_.deadline = SteadyDeadline(context.raw_deadline());
    asks_ = context.client_metadata().count(contract::kAskHeader) != 0;
  }

  // Call once, before gRPC has the reactor. The stream then lives until OnDone.
  void Start(const std::shared_ptr<Stream>& self) {
    streams_.Add(self);
    self_ = self;
    Update([] {});
  }

  bool EndIfQuietFor(std::chrono::steady_clock::duration quiet) override {
    bool ended = false;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (state_.busy() || more_ || waits_ || schedule::Clock::now() - quiet_since_ < quiet) return;
      ended = true;
      state_.EndQuietly(memory::CatchNoMemory(StoppingError));
    });
    return ended;
  }

  // The intake lets the stream receive its next piece.
  void Begin() override {
    waits_ = false;
    {
      absl::MutexLock lock(&mutex_);
      quiet_since_ = schedule::Clock::now();
    }
    if (std::exchange(asks_, false)) LetIn();
    StartRead(&incoming_);
  }

  // Only the first piece is refused: later ones belong to a call that has begun.
  void Late(const schedule::TooLong& too_long) override {
    if (begun_) return Begin();
    waits_ = false;
    const absl::Status status = TooLongError(too_long, options_.deadline, engine_.max_queue_time());
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.ReadFailed(status); });
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      intake_.Received(*this);
      return Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.AllRead(); });
    }
    const absl::Status taken = memory::CatchNoMemory([this] { return Take(); });
    if (taken.ok()) return;  // the stream may be gone
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.ReadFailed(taken); });
  }

  void OnWriteDone(bool ok) override {
    stalls_.End(write_);
    // Released before the stream can end, so that nothing is held when its end is seen. No other thread touches
    // outgoing_ until Written.
    outgoing_.message.Clear();
    outgoing_.lease = {};
    outgoing_.pass.reset();
    // All answers are with the transport and no further piece is announced: another call of this caller may be
    // received.
    if (--unanswered_ == 0 && !more_) intake_.Leave(*this);
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.Written(ok); });
  }

  void OnCancel() override {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      state_.Fail(memory::CatchNoMemory([] { return absl::CancelledError("the caller cancelled the stream"); }));
    });
  }

  void OnDone() override {
    stalls_.End(write_);
    streams_.Remove(this);
    const std::shared_ptr<Stream> self = std::move(self_);
  }

 private:
  // A step, with what it needs of the members guarded by the lock.
  struct Next {
    StreamState::Step step;
    std::shared_ptr<Piece> piece;  // to be computed, or dropped
    Answers dropped;
    grpc::Status status;  // the stream's final status
  };

  // The reactor may be gone after this. If there is nothing to do, it may be gone as soon as the lock is released,
  // because another thread may then end the stream.
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
    if (next.step.finish) {
      AddPushback(context_, state_.failure());
      next.status = ToGrpc(state_.failure());
    }
    return next;
  }

  // Carries out a step that does not finish the stream. The reactor lives at least until StreamState::Done.
  void Do(const Next& next) {
    if (next.step.give_up) GiveUp();
    if (next.step.write.has_value()) {
      Watch();
      StartWrite(&outgoing_.message);
    }
    if (next.step.compute.has_value()) Compute(next.piece);
    if (next.step.read) Read();
  }

  void GiveUp() {
    options_.cancel.Cancel();
    if (!intake_.Leave(*this)) return;
    waits_ = false;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.AllRead(); });
  }

  // Tells a client that waits to be admitted to send its first piece. The stream cannot end meanwhile: a read is under
  // way.
  void LetIn() {
    static_cast<void>(memory::CatchNoMemoryIn([this] { context_.AddInitialMetadata(contract::kLetInHeader, "1"); }));
    StartSendInitialMetadata();
  }

  // Starts a read: at once if the stream has begun and announced no further piece, or still has its place in the
  // intake; otherwise when its turn comes.
  void Read() {
    if ((begun_ && !more_) || intake_.Receives(*this)) return StartRead(&incoming_);
    intake_.Leave(*this);
    waits_ = true;
    schedule::TooLong too_long;
    schedule::IntakeLine::Joined joined{};
    const absl::Status asked = memory::CatchNoMemoryIn(
        [&] { joined = intake_.Join(*this, options_.account.get(), options_.deadline, too_long); });
    if (!asked.ok()) {
      waits_ = false;
      return Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { state_.ReadFailed(asked); });
    }
    if (joined == schedule::IntakeLine::Joined::kBegins) Begin();
    if (joined == schedule::IntakeLine::Joined::kRefused) Late(too_long);
    // Given up meanwhile by a thread that did not yet find it in the intake.
    if (joined == schedule::IntakeLine::Joined::kWaits && options_.cancel.cancelled()) GiveUp();
  }

  void End(const Next& next) {
    intake_.Leave(*this);
    Watch();
    if (next.step.write.has_value()) {
      StartWriteAndFinish(&outgoing_.message, grpc::WriteOptions(), next.status);
    } else {
      Finish(next.status);
    }
  }

  // Starts the time limit for the next write.
  void Watch() { stalls_.Begin(write_, context_.c_call(), static_cast<std::int64_t>(outgoing_.message.Length())); }

  // Takes the message that has arrived; its piece then waits to be computed. On an error, or std::bad_alloc, the stream
  // is to end with it, and the read still counts as under way.
  absl::Status Take() {
    StreamState::Piece counted;
    counted.message_bytes = static_cast<std::int64_t>(incoming_.Length());
    absl::StatusOr<Decoded<v1::StreamAttentionRequest>> decoded =
        Decode<v1::StreamAttentionRequest>(incoming_, engine_.limits().max_header_bytes);
    incoming_.Clear();
    if (!decoded.ok()) return decoded.status();
    counted.id = decoded->header.id();
    counted.result_bytes = SentResultBytes(decoded->header.call(), engine_.limits().max_result_bytes);
    const bool more = decoded->header.more();
    auto piece = std::make_shared<Piece>();
    piece->request = *std::move(decoded);
    piece->answer.try_emplace(counted.id);
    gate_.EnterMore();
    piece->pass.reset(&gate_);
    begun_ = true;
    more_ = more;
    ++unanswered_;
    if (!more) intake_.Received(*this);
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      switch (state_.Arrived(counted)) {
        case StreamState::Arrival::kTaken:
          waiting_ = std::move(piece);
          break;
        case StreamState::Arrival::kIdInUse:
          state_.Fail(memory::CatchNoMemory(
              [&counted] { return InvalidField("id", "one that no unanswered piece has", counted.id); }));
          piece.reset();
          break;
        case StreamState::Arrival::kOver:
          piece.reset();
          break;
      }
    });
    return absl::OkStatus();
  }

  void Compute(const std::shared_ptr<Piece>& piece) {
    const v1::ComputeAttentionRequest& call = piece->request.header.call();
    AttentionEngine::Done done;
    const absl::Status ready = memory::CatchNoMemory([&] {
      done = [this, piece](absl::StatusOr<AttentionResult> result) { Leave(*piece, std::move(result)); };
      return CheckCall(call);
    });
    if (!ready.ok()) return Leave(*piece, ready);
    engine_.Compute(call, piece->request.tensors(), options_, std::move(done));
  }

  // Never throws: however little memory is left, the piece is answered or the stream ended.
  void Leave(Piece& piece, absl::StatusOr<AttentionResult> result) {
    Answers::node_type node = piece.answer.extract(piece.answer.begin());
    const std::uint64_t id = node.key();
    Answer& answer = node.mapped();
    absl::Status answered =
        memory::CatchNoMemoryIn([&] { answer = MakeAnswer(id, streams_.going_away(), std::move(result)); });
    if (!answered.ok()) {
      answered =
          memory::CatchNoMemoryIn([&] { answer = MakeAnswer(id, streams_.going_away(), memory::NoMemoryError()); });
    }
    answer.pass = std::move(piece.pass);
    piece.request = {};  // frees the message's slices
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (!answered.ok()) state_.Fail(answered);
      const auto bytes = static_cast<std::int64_t>(answer.message.Length());
      if (state_.Computed(id, bytes)) {
        answers_.insert(std::move(node));
      } else {
        node = {};  // dropped here: nothing may be held once the stream has ended
      }
    });
  }

  AttentionEngine& engine_;
  CallGate& gate_;
  schedule::Intake& intake_;
  JobStreams& streams_;
  StallWatch& stalls_;
  grpc::CallbackServerContext& context_;  // until OnDone
  std::shared_ptr<Stream> self_;          // until OnDone
  ComputeOptions options_;                // constant; all pieces share its cancel token
  grpc::ByteBuffer incoming_;             // owned by gRPC while a read is under way
  Answer outgoing_;                       // owned by gRPC while a write is under way
  StallWatch::Transfer write_;            // its time limit
  bool asks_ = false;                     // the client waits for kLetInHeader, which has not been sent
  std::atomic<bool> begun_{false};        // a piece has arrived
  std::atomic<bool> more_{false};         // the last piece that arrived announced another
  std::atomic<bool> waits_{false};        // waits in the intake
  std::atomic<int> unanswered_{0};        // pieces that arrived and whose answers are not with the transport yet

  absl::Mutex mutex_;
  StreamState state_ ABSL_GUARDED_BY(mutex_){kStreamWindowBytes};
  std::shared_ptr<Piece> waiting_ ABSL_GUARDED_BY(mutex_);  // the piece that waits for room in the window
  Answers answers_ ABSL_GUARDED_BY(mutex_);                 // answers that wait for their write
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

std::int64_t JobStreams::EndThoseQuietFor(std::chrono::steady_clock::duration quiet) {
  going_away_.store(true, std::memory_order_relaxed);
  // Called without the lock, because a stream that ends may remove itself at once.
  std::vector<std::shared_ptr<JobStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, stream] : streams_) streams.push_back(stream.lock());
  }
  std::int64_t left = 0;
  for (const std::shared_ptr<JobStream>& stream : streams) {
    if (stream != nullptr && !stream->EndIfQuietFor(quiet)) ++left;
  }
  return left;
}

RawReactor* MakeAttentionStream(AttentionEngine& engine, CallGate& gate, schedule::Intake& intake, JobStreams& streams,
                                StallWatch& stalls, const Peers& peers, grpc::CallbackServerContext& context) {
  std::shared_ptr<Stream> stream;
  const absl::Status made = memory::CatchNoMemoryIn([&] {
    stream = std::make_shared<Stream>(engine, gate, intake, streams, stalls, peers.AccountOf(context), context);
    stream->Start(stream);
  });
  if (!made.ok()) return streams.Refuse(ToGrpc(made));
  return stream.get();
}

}  // namespace attnd::server
