#include "server/session/session_stream.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cache/page_shape.h"
#include "memory/no_memory.h"
#include "schedule/scheduler.h"
#include "server/rpc/admission.h"
#include "server/rpc/deadline.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/pushback.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "server/session/session.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

// Steps that are read ahead of the one that is computed: one that follows, and one that keeps no cancellation of the
// other two from being read.
constexpr std::size_t kStepsAhead = 2;

// A step from its arrival until it is answered.
struct Step {
  std::uint64_t number = 0;
  memory::Ticket message_lease;  // goes after the message
  Decoded<v1::SessionRequest> request;
  ComputeOptions options;
  absl::Status fault;  // of its arrival

  const v1::SessionStep& step() const { return request.header.step(); }
};

// An answer until it is with the transport. The message goes before its lease.
struct Answer {
  memory::Ticket lease;
  grpc::ByteBuffer message;
};

Answer MakeAnswer(const v1::SessionReply& reply) { return {{}, EncodeReply(reply, {}, {})}; }

// Whatever happens is told under the lock (Update), and what follows from it (Decide) is done without. The stream ends
// when nothing is computed or written any more, so nothing of this outlives it.
class Stream final : public RawReactor, public OpenSession {
 public:
  Stream(AttentionEngine& engine, const model::Registry& registry, SessionTable& table, StallWatch& stalls, Pass pass,
         const Peers& peers, grpc::CallbackServerContext& context)
      : engine_(engine),
        registry_(registry),
        table_(table),
        stalls_(stalls),
        context_(context),
        pass_(std::move(pass)),
        account_(peers.AccountOf(context)),
        session_account_(peers.SessionAccountOf(context)),
        deadline_(SteadyDeadline(context.raw_deadline())) {
    said_.set_peer(context.peer());
  }

  // Once, before gRPC has the reactor. The stream lives from then on until gRPC is done with it.
  absl::Status Start(const std::shared_ptr<Stream>& self) {
    ATTND_RETURN_IF_ERROR(table_.Add(self, account_.get()));
    self_ = self;
    Update([] {});
    return absl::OkStatus();
  }

  bool EndIfOver(Clock::time_point now) override {
    const SessionOptions& options = table_.options();
    bool ended = false;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (over_ || !failure_.ok()) return;
      const absl::Duration idle = absl::FromChrono(now - active_at_), life = absl::FromChrono(now - begun_at_);
      const bool busy = running_ != nullptr || !waiting_.empty() || writing_ || !answers_.empty();
      const bool too_old = life > options.life;
      if (!too_old && (busy || idle <= options.idle)) return;
      ended = true;
      Fail(memory::CatchNoMemory([&] {
        return too_old ? FieldError(absl::StatusCode::kAborted, "session",
                                    absl::StrCat("an end within ", absl::FormatDuration(options.life),
                                                 " (--session_life): the session was evicted"),
                                    absl::FormatDuration(life))
                       : FieldError(absl::StatusCode::kAborted, "session",
                                    absl::StrCat("a step at least every ", absl::FormatDuration(options.idle),
                                                 " (--session_idle): the session was evicted"),
                                    absl::StrCat("none for ", absl::FormatDuration(idle)));
      }));
    });
    return ended;
  }

  bool Evict() override {
    const absl::Status evicted = memory::CatchNoMemory([] {
      return FieldError(absl::StatusCode::kAborted, "session", "none that is evicted", "an operator's EvictSession");
    });
    bool ended = false;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      ended = !over_ && failure_.ok();
      Fail(evicted);
    });
    return ended;
  }

  void Describe(Clock::time_point now, v1::SessionInfo& info) override {
    absl::MutexLock lock(&mutex_);
    info.MergeFrom(said_);
    *info.mutable_age() = ToProto(absl::FromChrono(now - begun_at_));
    const absl::Duration idle = running_ != nullptr ? absl::ZeroDuration() : absl::FromChrono(now - active_at_);
    *info.mutable_idle() = ToProto(std::max(idle, absl::ZeroDuration()));
  }

  void SayGoingAway(absl::Duration time_left) override {
    Answer answer;
    const absl::Status made = memory::CatchNoMemoryIn([&] {
      v1::SessionReply reply;
      *reply.mutable_going_away()->mutable_time_left() = ToProto(time_left);
      answer = MakeAnswer(reply);
    });
    if (!made.ok()) return;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      going_away_ = true;
      if (opened_) {
        Queue(std::move(answer));
      } else {
        Fail(memory::CatchNoMemory(StoppingError));
      }
    });
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        reading_ = false;
        all_read_ = true;
        if (opened_) return;
        Fail(
            memory::CatchNoMemory([] { return InvalidField("kind", "open, in the session's first message", "none"); }));
      });
    }
    const absl::Status taken = memory::CatchNoMemory([this] { return Take(); });
    if (taken.ok()) return;  // the stream may be gone
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      Fail(taken);
    });
  }

  void OnWriteDone(bool ok) override {
    stalls_.End(write_);
    // Before the stream may end: whoever waits for its end finds nothing held. Nobody else touches it while it writes.
    outgoing_.message.Clear();
    outgoing_.lease = {};
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      writing_ = false;
      active_at_ = Clock::now();
      if (!ok) Fail(memory::CatchNoMemory([] { return absl::CancelledError("the caller is gone"); }));
    });
  }

  void OnCancel() override {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      Fail(memory::CatchNoMemory([] { return absl::CancelledError("the caller cancelled the session"); }));
    });
  }

  void OnDone() override {
    stalls_.End(write_);
    table_.Remove(this);
    const std::shared_ptr<Stream> self = std::move(self_);
  }

 private:
  struct Next {
    std::optional<schedule::CancelToken> give_up;  // what is computed
    std::shared_ptr<Step> begin;
    bool read = false;
    bool write = false;
    bool finish = false;
    bool free = false;  // what the session holds, before its end is told: no read, which may use it, is under way
    grpc::Status status;

    bool anything() const { return give_up.has_value() || begin != nullptr || read || write || finish; }
  };

  // After this the reactor may be gone.
  template <typename Change>
  void Update(Change change) {
    Next next;
    {
      absl::MutexLock lock(&mutex_);
      change();
      next = Decide();
    }
    while (next.anything()) {
      if (next.finish) return End(next);
      Do(next);
      next = {};
      absl::MutexLock lock(&mutex_);
      --acting_;
      next = Decide();
    }
  }

  Next Decide() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Next next;
    if (over_) return next;
    const bool failed = !failure_.ok();
    if (failed && !given_up_) {
      given_up_ = true;
      waiting_.clear();
      answers_.clear();
      if (running_ != nullptr) next.give_up = running_->options.cancel;
    }
    if (!writing_ && !answers_.empty()) {
      outgoing_ = std::move(answers_.front());
      answers_.pop_front();
      writing_ = next.write = true;
    }
    if (running_ == nullptr && !waiting_.empty() && answers_.empty()) {
      next.begin = running_ = std::move(waiting_.front());
      waiting_.pop_front();
    }
    if (!failed && !reading_ && !all_read_ && waiting_.size() < kStepsAhead) reading_ = next.read = true;
    if (next.anything()) {
      ++acting_;
      return next;
    }
    const bool idle = running_ == nullptr && !writing_ && acting_ == 0;
    if (idle && (failed || (all_read_ && waiting_.empty() && answers_.empty()))) {
      over_ = next.finish = true;
      next.free = !reading_;
      AddPushback(context_, failure_);
      next.status = ToGrpc(failure_);
    }
    return next;
  }

  void Do(const Next& next) {
    if (next.give_up.has_value()) schedule::CancelToken(*next.give_up).Cancel();
    if (next.write) {
      stalls_.Begin(write_, context_.c_call(), static_cast<std::int64_t>(outgoing_.message.Length()));
      StartWrite(&outgoing_.message);
    }
    if (next.begin != nullptr) Begin(next.begin);
    if (next.read) StartRead(&incoming_);
  }

  void End(const Next& next) {
    if (next.free) {
      session_.reset();
      reserved_ = {};
      table_.Remove(this);
      pass_.reset();
    }
    stalls_.Begin(write_, context_.c_call(), 0);
    Finish(next.status);
  }

  void Fail(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (failure_.ok()) failure_ = status;
  }

  void Queue(Answer answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (over_ || !failure_.ok()) return;
    const absl::Status queued =
        memory::CatchNoMemoryIn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { answers_.push_back(std::move(answer)); });
    if (!queued.ok()) Fail(queued);
  }

  // Takes the message that has arrived. An error says why the stream is to end: the read still counts as under way
  // then.
  absl::Status Take() {
    const auto bytes = static_cast<std::int64_t>(incoming_.Length());
    absl::StatusOr<Decoded<v1::SessionRequest>> decoded =
        Decode<v1::SessionRequest>(incoming_, engine_.limits().max_header_bytes);
    incoming_.Clear();
    if (!decoded.ok()) return decoded.status();
    const v1::SessionRequest& header = decoded->header;
    if (header.kind_case() == v1::SessionRequest::kOpen) return Open(header.open());
    if (session_ == nullptr) return InvalidField("kind", "open, in the session's first message", "something else");
    switch (header.kind_case()) {
      case v1::SessionRequest::kStep:
        return TakeStep(*std::move(decoded), bytes);
      case v1::SessionRequest::kCancel:
        return Cancel(header.cancel().step());
      default:
        return InvalidField("kind", "step or cancel", "none");
    }
  }

  absl::Status Open(const v1::SessionOpen& open) {
    if (session_ != nullptr) return InvalidField("open", "once, in the session's first message", "another one");
    ATTND_ASSIGN_OR_RETURN(SessionShape shape, CheckOpen(open, engine_.limits(), registry_));
    ATTND_ASSIGN_OR_RETURN(reserved_, Admit(engine_.ledger(), session_account_, shape.reserved_bytes(), 0, "open"));
    v1::SessionReply reply;
    v1::SessionOpened& opened = *reply.mutable_opened();
    if (shape.model != nullptr) {
      opened.set_version(shape.model->version());
      opened.set_content_hash(shape.model->content_hash());
    }
    opened.set_reserved_bytes(shape.reserved_bytes());
    opened.set_page_tokens(cache::kPageTokens);
    const SessionOptions& options = table_.options();
    if (options.idle < absl::InfiniteDuration()) *opened.mutable_idle_time() = ToProto(options.idle);
    if (options.life < absl::InfiniteDuration()) *opened.mutable_life_time() = ToProto(options.life);
    Answer answer = MakeAnswer(reply);
    v1::SessionInfo said;
    said.set_model(open.model());
    said.set_version(opened.version());
    said.set_rows(shape.rows);
    said.set_sources(shape.sources);
    said.set_layers(static_cast<std::int64_t>(shape.layers.size()));
    said.set_reserved_bytes(shape.reserved_bytes());
    ATTND_ASSIGN_OR_RETURN(session_, Session::Create(std::move(shape), engine_.limits()));
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      said.set_peer(said_.peer());
      said_.Swap(&said);
      opened_ = true;
      if (going_away_) Fail(memory::CatchNoMemory(StoppingError));
      active_at_ = Clock::now();
      Queue(std::move(answer));
    });
    return absl::OkStatus();
  }

  absl::Status TakeStep(Decoded<v1::SessionRequest> request, std::int64_t bytes) {
    auto step = std::make_shared<Step>();
    step->request = std::move(request);
    step->number = step->step().step();
    step->options.account = account_;
    step->options.deadline = deadline_;
    if (step->step().has_timeout()) {
      const absl::StatusOr<Clock::time_point> due = DeadlineAfter(step->step().timeout());
      step->fault = due.status();
      if (due.ok()) step->options.deadline = std::min(deadline_, *due);
    }
    if (absl::StatusOr<memory::Ticket> lease = Admit(engine_.ledger(), account_, bytes); lease.ok()) {
      step->message_lease = *std::move(lease);
    } else {
      step->fault = lease.status();
      step->request.split = {};
    }
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      active_at_ = Clock::now();
      if (failure_.ok()) waiting_.push_back(std::move(step));
    });
    return absl::OkStatus();
  }

  absl::Status Cancel(std::uint64_t number) {
    std::shared_ptr<Step> step;
    {
      absl::MutexLock lock(&mutex_);
      std::vector<std::shared_ptr<Step>> candidates(waiting_.begin(), waiting_.end());
      candidates.push_back(running_);
      for (const std::shared_ptr<Step>& candidate : candidates) {
        if (candidate != nullptr && candidate->number == number) step = candidate;
      }
    }
    if (step != nullptr) step->options.cancel.Cancel();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { reading_ = false; });
    return absl::OkStatus();
  }

  // Of the step that is running_, which nobody else touches. The session has one step at a time.
  void Begin(const std::shared_ptr<Step>& step) {
    const absl::Status may = memory::CatchNoMemory([&] {
      ATTND_RETURN_IF_ERROR(step->fault);
      if (step->options.cancel.cancelled()) return absl::CancelledError("the caller cancelled the step");
      if (step->options.deadline <= Clock::now()) return absl::DeadlineExceededError("the step's time is over");
      return absl::OkStatus();
    });
    if (!may.ok()) return Leave(step, may);
    absl::StatusOr<std::optional<ValidAttention>> begun = session_->Begin(step->step(), step->request.tensors());
    if (!begun.ok()) return Leave(step, begun.status());
    if (!begun->has_value()) {
      session_->End(true);
      return Leave(step, AttentionResult());
    }
    AttentionEngine::Done done;
    const absl::Status ready = memory::CatchNoMemoryIn([&] {
      done = [this, step](absl::StatusOr<AttentionResult> result) {
        session_->End(result.ok());
        Leave(step, std::move(result));
      };
    });
    if (!ready.ok()) {
      session_->End(false);
      return Leave(step, ready);
    }
    engine_.ComputeValid(**std::move(begun), 0, step->options, std::move(done));
  }

  // Never throws: however little memory is left, the step is answered or the stream ended.
  void Leave(const std::shared_ptr<Step>& step, absl::StatusOr<AttentionResult> result) {
    Answer answer;
    const bool ok = result.ok();
    const bool quiet = ok && step->step().quiet();
    absl::Status made = absl::OkStatus();
    if (!quiet) made = memory::CatchNoMemoryIn([&] { answer = AnswerTo(step->step(), std::move(result)); });
    // A step that is done must not be called failed: without memory to say so the session ends.
    if (!made.ok() && !ok) {
      made = memory::CatchNoMemoryIn([&] { answer = AnswerTo(step->step(), memory::NoMemoryError()); });
    }
    const std::int64_t used_bytes = session_->used_bytes();
    step->request = {};  // gives the message's slices back
    step->message_lease = {};
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      running_.reset();
      said_.set_used_bytes(used_bytes);
      if (ok) said_.set_steps(said_.steps() + 1);
      active_at_ = Clock::now();
      if (!made.ok()) Fail(made);
      if (!quiet) Queue(std::move(answer));
    });
  }

  Answer AnswerTo(const v1::SessionStep& step, absl::StatusOr<AttentionResult> result) {
    v1::SessionReply reply;
    v1::SessionStepResult& said = *reply.mutable_result();
    said.set_step(step.step());
    if (!result.ok()) {
      SetError(result.status(), said);
      return MakeAnswer(reply);
    }
    session_->Describe(said);
    if (step.query_length() == 0) return MakeAnswer(reply);
    said.set_dtype(result->header.dtype());
    *said.mutable_queue_time() = result->header.queue_time();
    *said.mutable_compute_time() = result->header.compute_time();
    return {std::move(result->lease), EncodeReply(reply, std::move(result->log_sum_exp), std::move(result->output))};
  }

  AttentionEngine& engine_;
  const model::Registry& registry_;
  SessionTable& table_;
  StallWatch& stalls_;
  grpc::CallbackServerContext& context_;  // until OnDone
  Pass pass_;
  const std::shared_ptr<memory::Account> account_;          // of the peer's steps
  const std::shared_ptr<memory::Account> session_account_;  // of what its sessions keep
  const Clock::time_point deadline_;
  const Clock::time_point begun_at_ = Clock::now();
  std::shared_ptr<Stream> self_;      // until gRPC is done with the reactor
  memory::Ticket reserved_;           // goes after the session
  std::unique_ptr<Session> session_;  // made by a read; the running step's
  grpc::ByteBuffer incoming_;         // the read's, while one is under way
  Answer outgoing_;                   // the write's
  StallWatch::Transfer write_;        // likewise

  absl::Mutex mutex_;
  std::shared_ptr<Step> running_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Step>> waiting_ ABSL_GUARDED_BY(mutex_);  // for the running one
  std::deque<Answer> answers_ ABSL_GUARDED_BY(mutex_);                 // that wait for their write
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool going_away_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;
  bool given_up_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  int acting_ ABSL_GUARDED_BY(mutex_) = 0;  // threads that do what was decided
  Clock::time_point active_at_ ABSL_GUARDED_BY(mutex_) = begun_at_;
  v1::SessionInfo said_ ABSL_GUARDED_BY(mutex_);  // to operators
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

RawReactor* MakeSessionStream(AttentionEngine& engine, const model::Registry& registry, CallGate& gate,
                              SessionTable& table, RefusedStreams<RawReactor>& refused, StallWatch& stalls,
                              const Peers& peers, grpc::CallbackServerContext& context) {
  std::shared_ptr<Stream> stream;
  const absl::Status made = memory::CatchNoMemory([&] {
    if (!gate.Enter()) return StoppingError();
    Pass pass(&gate);
    stream = std::make_shared<Stream>(engine, registry, table, stalls, std::move(pass), peers, context);
    return stream->Start(stream);
  });
  if (!made.ok()) return refused.Refuse(ToGrpc(made));
  return stream.get();
}

}  // namespace attnd::server
