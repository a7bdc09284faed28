#include "server/attention/stream.h"

#include <cstdint>
#include <list>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "memory/no_memory.h"
#include "server/rpc/deadline.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// A piece from then until its answer is with the transport. The message goes before its lease, and that before the
// pass.
struct Answer {
  std::uint64_t id = 0;
  Pass pass;
  memory::Budget::Lease lease;
  grpc::ByteBuffer message;
};

// A list moves its elements from one to another, and is made, without taking memory.
using Answers = std::list<Answer>;

// A piece from its arrival until it is computed.
struct Piece {
  Decoded<v1::StreamAttentionRequest> request;
  std::size_t bytes;  // of the message
  Pass pass;
  Answers answer{1};  // the one that it will get
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
    return {id, {}, {}, EncodeReply(header, {}, {})};
  }
  *header.mutable_result() = std::move(result->header);
  return {
      id, {}, std::move(result->lease), EncodeReply(header, std::move(result->log_sum_exp), std::move(result->output))};
}

// Pieces are read one at a time and computed in any number; answers are written one at a time, as they come. Whatever
// happens changes the state and decides what is to be done next, both under the lock; what was decided is then done
// without it. The stream ends when nothing is read, computed or written any more, so nothing of this outlives it.
class Stream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>, public JobStream {
 public:
  Stream(AttentionEngine& engine, CallGate& gate, JobStreams& streams, grpc::CallbackServerContext& context)
      : engine_(engine), gate_(gate), streams_(streams) {
    options_.deadline = SteadyDeadline(context.raw_deadline());
  }

  // Once, before gRPC has the reactor. The stream lives from then on until gRPC is done with it.
  void Start(const std::shared_ptr<Stream>& self) {
    streams_.Add(self);
    self_ = self;
    StartRead(&incoming_);
  }

  void EndIfQuietFor(std::chrono::steady_clock::duration quiet) override {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (busy() || schedule::Clock::now() - quiet_since_ < quiet) return;
      ending_ = true;
      failure_.Update(memory::CatchNoMemory(StoppingError));
    });
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      const absl::Status taken = memory::CatchNoMemoryIn([this] { Take(); });
      if (!taken.ok()) Fail(taken);
    }
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
      if (!ok) failure_.Update(memory::CatchNoMemory([] { return absl::CancelledError("the caller reads no more"); }));
    });
  }

  void OnCancel() override {
    // Known first: what is cancelled then ends here, and is not answered any more.
    schedule::CancelToken cancel = options_.cancel;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      failure_.Update(memory::CatchNoMemory([] { return absl::CancelledError("the caller cancelled the stream"); }));
    });
    cancel.Cancel();
  }

  void OnDone() override {
    streams_.Remove(this);
    const std::shared_ptr<Stream> self = std::move(self_);
  }

 private:
  // What to do, as decided under the lock.
  struct Next {
    bool read = false;
    bool write = false;
    bool finish = false;  // after the write, if there is one
    Answers dropped;      // freed without the lock

    bool anything() const { return read || write || finish; }
  };

  // After this the reactor may be gone, and after the lock already if there is nothing to do: another thread may then
  // have ended the stream.
  template <typename Change>
  void Update(Change change) {
    Next next;
    {
      absl::MutexLock lock(&mutex_);
      const bool was_busy = busy();
      change();
      next = Decide();
      if (was_busy || busy()) quiet_since_ = schedule::Clock::now();
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
    const bool nothing_to_come = !may_read && (!reading_ || ending_) && computing_ == 0 && answers_.empty();
    // The last answer takes the stream's end along.
    if (nothing_to_come && (next.write || !writing_)) next.finish = finished_ = true;
    return next;
  }

  bool busy() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return computing_ > 0 || !answers_.empty() || writing_; }

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

  // Starts to compute the piece that has arrived. Throws only while the piece does not count yet.
  void Take() {
    auto piece = std::make_shared<Piece>();
    piece->bytes = incoming_.Length();
    absl::StatusOr<Decoded<v1::StreamAttentionRequest>> decoded =
        Decode<v1::StreamAttentionRequest>(incoming_, engine_.limits().max_header_bytes);
    incoming_.Clear();
    if (!decoded.ok()) return Fail(decoded.status());
    piece->request = *std::move(decoded);
    AttentionEngine::Done done = [this, piece](absl::StatusOr<AttentionResult> result) {
      Leave(*piece, std::move(result));
    };
    switch (Enter(*piece)) {
      case Entry::kOver:
        return;
      case Entry::kIdInUse:
        return Fail(InvalidField("id", "one that no unanswered piece has", piece->request.header.id()));
      case Entry::kEntered:
        break;
    }
    gate_.EnterMore();
    piece->pass.reset(&gate_);
    const absl::Status valid = memory::CatchNoMemory([&] { return CheckCall(piece->request.header.call()); });
    if (!valid.ok()) return Leave(*piece, valid);
    engine_.Compute(piece->request.header.call(), piece->request.tensors(), options_, std::move(done));
  }

  enum class Entry { kEntered, kIdInUse, kOver };
  // kOver: the stream has been ended while the piece was on its way.
  Entry Enter(const Piece& piece) {
    absl::MutexLock lock(&mutex_);
    if (ending_) return Entry::kOver;
    if (!ids_.insert(piece.request.header.id()).second) return Entry::kIdInUse;
    ++computing_;
    held_bytes_ += piece.bytes;
    return Entry::kEntered;
  }

  // Never throws: whatever memory is left, the piece is accounted for, and answered or the stream ended.
  void Leave(Piece& piece, absl::StatusOr<AttentionResult> result) {
    const std::uint64_t id = piece.request.header.id();
    Answer& answer = piece.answer.front();
    absl::Status answered = memory::CatchNoMemoryIn([&] { answer = MakeAnswer(id, std::move(result)); });
    if (!answered.ok()) answered = memory::CatchNoMemoryIn([&] { answer = MakeAnswer(id, memory::NoMemoryError()); });
    answer.pass = std::move(piece.pass);
    piece.request = {};  // gives the message's slices back
    if (!answered.ok()) options_.cancel.Cancel();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      held_bytes_ -= piece.bytes;
      held_bytes_ += answer.message.Length();
      answers_.splice(answers_.end(), piece.answer);
      --computing_;
      failure_.Update(answered);
    });
  }

  AttentionEngine& engine_;
  CallGate& gate_;
  JobStreams& streams_;
  std::shared_ptr<Stream> self_;     // until gRPC is done with the reactor
  schedule::SubmitOptions options_;  // constant; its token is shared by all pieces
  grpc::ByteBuffer incoming_;        // the read's, while one is under way
  Answer outgoing_;                  // the write's

  absl::Mutex mutex_;
  std::set<std::uint64_t> ids_ ABSL_GUARDED_BY(mutex_);
  Answers answers_ ABSL_GUARDED_BY(mutex_);
  std::size_t computing_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // by what is computed, waits or is written
  std::size_t outgoing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;  // by us, whether or not a read is under way
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  schedule::Clock::time_point quiet_since_ ABSL_GUARDED_BY(mutex_) = schedule::Clock::now();
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
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

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeAttentionStream(AttentionEngine& engine,
                                                                                 CallGate& gate, JobStreams& streams,
                                                                                 grpc::CallbackServerContext& context) {
  std::shared_ptr<Stream> stream;
  const absl::Status made = memory::CatchNoMemoryIn([&] {
    stream = std::make_shared<Stream>(engine, gate, streams, context);
    stream->Start(stream);
  });
  if (!made.ok()) return streams.Refuse(ToGrpc(made));
  return stream.get();
}

}  // namespace attnd::server
