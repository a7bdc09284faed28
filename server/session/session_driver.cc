#include "server/session/session_driver.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cache/page_shape.h"
#include "memory/no_memory.h"
#include "server/rpc/admission.h"
#include "server/rpc/deadline.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

// Steps read ahead of the running one: the next, and one more so that a cancellation of the running or the next step is
// still read.
constexpr std::size_t kStepsAhead = 2;

// Copying, or giving back to the system, more than this takes longer than about 0.2 ms, and runs on the scheduler
// instead of a thread that others wait for.
constexpr std::int64_t kLongToCopy = 1 << 20;
constexpr std::int64_t kLongToFree = 16 << 20;

constexpr std::size_t kTokenBytes = 16;

absl::StatusOr<std::string> RandomToken() {
  std::string token(kTokenBytes, '\0');
  if (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
    return absl::InternalError("the system gave no random numbers");
  }
  return token;
}

// How long the session is to be kept without a connection.
absl::StatusOr<absl::Duration> GraceOf(const v1::SessionOpen& open, absl::Duration most) {
  if (!open.has_grace()) return absl::ZeroDuration();
  ATTND_ASSIGN_OR_RETURN(const absl::Duration grace, CheckedDuration("open.grace", open.grace()));
  return std::min(grace, most);
}

SessionAnswer MakeAnswer(const v1::SessionReply& reply) { return {{}, EncodeReply(reply, {}, {})}; }

}  // namespace

SessionDriver::SessionDriver(const SessionHost& host, SessionCaller caller, Pass pass)
    : host_(host), caller_(std::move(caller)), pass_(std::move(pass)) {
  said_.set_peer(caller_.address);
}

absl::Status SessionDriver::Start(const std::shared_ptr<SessionDriver>& self) {
  self_ = self;  // before it can be found in the table
  absl::Status added = memory::CatchNoMemory([&] { return host_.table.Add(self, caller_.account.get()); });
  if (!added.ok()) {
    Release();
    return added;
  }
  Update([] {});
  return absl::OkStatus();
}

void SessionDriver::Release() { const std::shared_ptr<SessionDriver> self = std::move(self_); }

bool SessionDriver::EndIfOver(Clock::time_point now) {
  const SessionOptions& options = host_.table.options();
  bool ended = false;
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (over_ || !failure_.ok()) return;
    const absl::Duration idle = absl::FromChrono(now - active_at_), life = absl::FromChrono(now - begun_at_);
    const bool too_old = life > options.life;
    if (!too_old && (Busy() || idle <= options.idle)) return;
    ended = true;
    FailLocked(memory::CatchNoMemory([&] {
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

std::optional<OpenSession::Idle> SessionDriver::IdleFor(Clock::time_point now) {
  absl::MutexLock lock(&mutex_);
  if (!opened_ || over_ || !failure_.ok() || Busy()) return std::nullopt;
  return Idle{absl::FromChrono(now - active_at_), said_.reserved_bytes()};
}

bool SessionDriver::EndIfLeaseIsOver(Clock::time_point now) {
  const absl::Duration lease = host_.table.options().lease;
  bool ended = false;
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Duration idle = absl::FromChrono(now - active_at_);
    if (!opened_ || over_ || !failure_.ok() || Busy() || idle <= lease) return;
    ended = true;
    FailLocked(memory::CatchNoMemory([&] {
      return FieldError(absl::StatusCode::kAborted, "session",
                        absl::StrCat("a step at least every ", absl::FormatDuration(lease),
                                     " (--session_lease) while others find no room: the session was evicted"),
                        absl::StrCat("none for ", absl::FormatDuration(idle)));
    }));
  });
  return ended;
}

bool SessionDriver::Evict() {
  const absl::Status evicted = memory::CatchNoMemory([] {
    return FieldError(absl::StatusCode::kAborted, "session", "none that is evicted", "an operator's EvictSession");
  });
  bool ended = false;
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ended = !over_ && failure_.ok();
    FailLocked(evicted);
  });
  return ended;
}

void SessionDriver::Describe(Clock::time_point now, v1::SessionInfo& info) {
  absl::MutexLock lock(&mutex_);
  info.MergeFrom(said_);
  *info.mutable_age() = ToProto(absl::FromChrono(now - begun_at_));
  const absl::Duration idle = running_ != nullptr ? absl::ZeroDuration() : absl::FromChrono(now - active_at_);
  *info.mutable_idle() = ToProto(std::max(idle, absl::ZeroDuration()));
}

void SessionDriver::SayGoingAway(absl::Duration time_left) {
  SessionAnswer answer;
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
      FailLocked(memory::CatchNoMemory(StoppingError));
    }
  });
}

void SessionDriver::EndForStop() { Fail(memory::CatchNoMemory(StoppingError)); }

std::optional<SessionState> SessionDriver::Yield() {
  const absl::Status resumed = memory::CatchNoMemory([] {
    return FieldError(absl::StatusCode::kAborted, "session", "one connection", "another one, which resumes it");
  });
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    LoseLocked(resumed);
    abandon_ = sending_;  // without an answer under way it ends at once, with its status
  });
  return std::nullopt;
}

void SessionDriver::Take(grpc::ByteBuffer& message) {
  bool wanted = false;
  {
    absl::MutexLock lock(&mutex_);
    taking_ = wanted = !over_ && failure_.ok();
  }
  const absl::Status taken = wanted ? memory::CatchNoMemory([&] { return Dispatch(message); }) : absl::OkStatus();
  message.Clear();
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    taking_ = asking_ = false;
    FailLocked(taken);
  });
}

void SessionDriver::NoMore() { EndReads(false); }

void SessionDriver::Close() { EndReads(true); }

void SessionDriver::EndReads(bool closed) {
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    asking_ = false;
    if (closed) closed_ = true;
    if (std::exchange(all_read_, true)) return;  // NoMore after Close
    if (failure_.ok()) lost_ = !closed && !token_.empty();
    if (opened_) return;
    FailLocked(memory::CatchNoMemory(
        [] { return InvalidField("kind", "open or resume, in the session's first message", "none"); }));
  });
}

void SessionDriver::Sent(bool ok) {
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    sending_ = false;
    active_at_ = Clock::now();
    if (!ok) LoseLocked(memory::CatchNoMemory([] { return absl::CancelledError("the caller is gone"); }));
  });
}

void SessionDriver::Fail(const absl::Status& status) {
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { FailLocked(status); });
}

void SessionDriver::Lose(const absl::Status& status) {
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { LoseLocked(status); });
}

void SessionDriver::LoseLocked(const absl::Status& status) {
  if (over_ || !failure_.ok()) return;
  FailLocked(status);
  lost_ = !closed_;
}

template <typename Change>
void SessionDriver::Update(Change change) {
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    change();
    next = Decide();
  }
  while (next.anything()) {
    if (next.finish) return End(next.status);
    Do(std::move(next));
    next = {};
    absl::MutexLock lock(&mutex_);
    --acting_;
    next = Decide();
  }
}

SessionDriver::Next SessionDriver::Decide() {
  Next next;
  if (over_) return next;
  const bool failed = !failure_.ok();
  if (failed && !given_up_) {
    given_up_ = true;
    waiting_.clear();
    answers_.clear();
    if (running_ != nullptr) next.give_up = running_->options.cancel;
  }
  if (!sending_ && !answers_.empty()) {
    next.send = std::move(answers_.front());
    answers_.pop_front();
    sending_ = true;
  }
  if (running_ == nullptr && !waiting_.empty() && answers_.empty()) {
    next.begin = running_ = std::move(waiting_.front());
    waiting_.pop_front();
  }
  next.abandon = std::exchange(abandon_, false);
  if (!failed && !asking_ && !all_read_ && waiting_.size() < kStepsAhead) asking_ = next.ask = true;
  if (next.anything()) {
    ++acting_;
    return next;
  }
  const bool idle = running_ == nullptr && !sending_ && !taking_ && acting_ == 0;
  if (idle && (failed || (all_read_ && waiting_.empty() && answers_.empty()))) {
    over_ = next.finish = true;
    next.status = failure_;
  }
  return next;
}

void SessionDriver::Do(Next next) {
  if (next.give_up.has_value()) next.give_up->Cancel();
  if (next.abandon) Abandon();
  if (next.send.has_value()) Send(*std::move(next.send));
  if (next.begin != nullptr) Begin(next.begin);
  if (next.ask) Ask();
}

void SessionDriver::End(const absl::Status& status) {
  if (session_ != nullptr && session_->used_bytes() > kLongToFree) {
    const absl::Status begun = memory::CatchNoMemoryIn(
        [&] { host_.engine.RunAside([this, status](const absl::Status&) { EndNow(status); }, {}); });
    if (begun.ok()) return;
  }
  EndNow(status);
}

// What the session keeps is freed or parked before its end is reported.
void SessionDriver::EndNow(const absl::Status& status) {
  ParkIfLost();
  session_.reset();
  reserved_ = {};
  host_.table.Remove(this);
  SayEnd(status, std::move(pass_));
}

void SessionDriver::ParkIfLost() {
  if (session_ == nullptr || token_.empty()) return;
  static_cast<void>(memory::CatchNoMemoryIn([&] {
    SessionState state;
    state.token = token_;
    state.grace = grace_;
    {
      absl::MutexLock lock(&mutex_);
      if (!lost_) return;
      state.begun_at = begun_at_;
      state.said.Swap(&said_);
    }
    state.account = caller_.account;
    state.reserved = std::move(reserved_);
    state.session = std::move(session_);
    host_.table.Park(this, std::move(state));
  }));
}

void SessionDriver::FailLocked(const absl::Status& status) {
  if (!failure_.ok() || status.ok()) return;
  failure_ = status;
  lost_ = false;  // it ends with this error; LoseLocked sets it again
}

void SessionDriver::Queue(SessionAnswer answer) {
  if (over_ || !failure_.ok()) return;
  const absl::Status queued =
      memory::CatchNoMemoryIn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { answers_.push_back(std::move(answer)); });
  if (!queued.ok()) FailLocked(queued);
}

absl::Status SessionDriver::Dispatch(grpc::ByteBuffer& message) {
  const auto bytes = static_cast<std::int64_t>(message.Length());
  absl::StatusOr<Decoded<v1::SessionRequest>> decoded =
      Decode<v1::SessionRequest>(message, host_.engine.limits().max_header_bytes);
  message.Clear();
  if (!decoded.ok()) return decoded.status();
  const v1::SessionRequest& header = decoded->header;
  if (header.kind_case() == v1::SessionRequest::kOpen) return Open(header.open());
  if (header.kind_case() == v1::SessionRequest::kResume) return Resume(header.resume());
  if (session_ == nullptr)
    return InvalidField("kind", "open or resume, in the session's first message", "something else");
  switch (header.kind_case()) {
    case v1::SessionRequest::kStep:
      return TakeStep(*std::move(decoded), bytes);
    case v1::SessionRequest::kCancel:
      Cancel(header.cancel().step());
      return absl::OkStatus();
    case v1::SessionRequest::kClose:
      Close();
      return absl::OkStatus();
    default:
      return InvalidField("kind", "step, cancel or close", "none");
  }
}

absl::Status SessionDriver::Open(const v1::SessionOpen& open) {
  if (session_ != nullptr) return InvalidField("open", "once, in the session's first message", "another one");
  AttentionEngine& engine = host_.engine;
  ATTND_ASSIGN_OR_RETURN(SessionShape shape, CheckOpen(open, engine.limits(), host_.registry));
  ATTND_ASSIGN_OR_RETURN(const std::int64_t max_sent_bytes, CheckedMaxSentBytes(shape));
  v1::SessionInfo said;
  said.set_model(open.model());
  if (shape.model != nullptr) said.set_version(shape.model->version());
  said.set_rows(shape.rows);
  said.set_sources(shape.sources);
  said.set_layers(static_cast<std::int64_t>(shape.layers.size()));
  said.set_reserved_bytes(shape.reserved_bytes());
  ATTND_ASSIGN_OR_RETURN(grace_, GraceOf(open, host_.table.options().grace));
  if (grace_ > absl::ZeroDuration()) {
    ATTND_ASSIGN_OR_RETURN(token_, RandomToken());
    host_.table.SetToken(this, token_);
  }
  ATTND_RETURN_IF_ERROR(Reserve(shape.reserved_bytes()));
  ATTND_ASSIGN_OR_RETURN(session_,
                         Session::Create(std::move(shape), engine.limits(), engine.shared_memory(), max_sent_bytes));
  return Welcome(std::move(said));
}

absl::Status SessionDriver::Resume(const v1::SessionResume& resume) {
  if (session_ != nullptr) return InvalidField("resume", "once, in the session's first message", "another one");
  ATTND_ASSIGN_OR_RETURN(SessionState state, host_.table.Resume(resume.token(), this));
  reserved_ = std::move(state.reserved);
  session_ = std::move(state.session);
  token_ = std::move(state.token);
  grace_ = state.grace;
  {
    absl::MutexLock lock(&mutex_);
    begun_at_ = state.begun_at;
  }
  absl::Status welcomed = memory::CatchNoMemory([&] {
    ATTND_ASSIGN_OR_RETURN(const std::int64_t max_sent_bytes, CheckedMaxSentBytes(session_->shape()));
    session_->SetMaxSentBytes(max_sent_bytes);
    return Welcome(std::move(state.said));
  });
  if (!welcomed.ok()) Lose(welcomed);  // another connection may be able to resume it
  return welcomed;
}

absl::StatusOr<std::int64_t> SessionDriver::CheckedMaxSentBytes(const SessionShape& shape) const {
  const std::int64_t bytes = MaxSentBytes(shape);
  if (bytes > 0) return bytes;
  return FieldError(absl::StatusCode::kResourceExhausted, "rows",
                    "so few that an answer holds all their lengths (a session by gRPC has room for more)",
                    absl::StrCat(shape.rows));
}

absl::Status SessionDriver::Welcome(v1::SessionInfo said) {
  v1::SessionReply reply;
  v1::SessionOpened& opened = *reply.mutable_opened();
  const SessionShape& shape = session_->shape();
  if (shape.model != nullptr) {
    opened.set_version(shape.model->version());
    opened.set_content_hash(shape.model->content_hash());
  }
  opened.set_reserved_bytes(shape.reserved_bytes());
  opened.set_page_tokens(cache::kPageTokens);
  opened.set_max_message_bytes(max_message_bytes());
  const SessionOptions& options = host_.table.options();
  if (options.lease < absl::InfiniteDuration()) *opened.mutable_lease_time() = ToProto(options.lease);
  if (options.idle < absl::InfiniteDuration()) *opened.mutable_idle_time() = ToProto(options.idle);
  if (options.life < absl::InfiniteDuration()) *opened.mutable_life_time() = ToProto(options.life);
  if (!token_.empty()) {
    opened.set_resume_token(token_);
    *opened.mutable_grace_time() = ToProto(grace_);
  }
  opened.set_last_step(session_->last_step());
  SessionAnswer answer = MakeAnswer(reply);
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    said.set_peer(said_.peer());
    said_.Swap(&said);
    opened_ = true;
    if (going_away_) FailLocked(memory::CatchNoMemory(StoppingError));
    active_at_ = Clock::now();
    Queue(std::move(answer));
  });
  return absl::OkStatus();
}

absl::Status SessionDriver::Reserve(std::int64_t bytes) {
  absl::Status taken;
  const auto take = [&] {
    absl::StatusOr<memory::Ticket> ticket = Admit(host_.engine.ledger(), caller_.session_account, bytes, 0, "open");
    taken = ticket.status();
    if (ticket.ok()) reserved_ = *std::move(ticket);
    return taken.ok();
  };
  // If a retry could succeed, evicting sessions whose lease is over may make room at once.
  if (take() || !RetryDelayOf(taken).has_value() || !host_.table.MakeRoom(bytes) || take()) return taken;
  SetRetryDelay(absl::Milliseconds(100), taken);  // the evicted sessions' memory is about to be free
  return taken;
}

absl::Status SessionDriver::TakeStep(Decoded<v1::SessionRequest> request, std::int64_t bytes) {
  auto step = std::make_shared<Step>();
  step->request = std::move(request);
  step->number = step->step().step();
  step->options.account = caller_.account;
  step->options.deadline = caller_.deadline;
  if (step->step().has_timeout()) {
    const absl::StatusOr<Clock::time_point> due = DeadlineAfter(step->step().timeout());
    step->fault = due.status();
    if (due.ok()) step->options.deadline = std::min(caller_.deadline, *due);
  }
  if (absl::StatusOr<memory::Ticket> lease = Admit(host_.engine.ledger(), caller_.account, bytes); lease.ok()) {
    step->message_lease = *std::move(lease);
  } else {
    step->fault = lease.status();
    step->request.split = {};
  }
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    active_at_ = Clock::now();
    if (failure_.ok()) waiting_.push_back(std::move(step));
  });
  return absl::OkStatus();
}

void SessionDriver::Cancel(std::uint64_t number) {
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
}

void SessionDriver::Begin(const std::shared_ptr<Step>& step) {
  const absl::Status may = memory::CatchNoMemory([&] {
    ATTND_RETURN_IF_ERROR(step->fault);
    if (step->options.cancel.cancelled()) return absl::CancelledError("the caller cancelled the step");
    if (step->options.deadline <= Clock::now()) return absl::DeadlineExceededError("the step's time is over");
    return absl::OkStatus();
  });
  if (!may.ok()) return Leave(step, may);
  if (session_->BytesToCopy(step->step()) <= kLongToCopy) return BeginNow(step);
  const absl::Status begun = memory::CatchNoMemoryIn([&] {
    const auto begin = [this, step](const absl::Status& turn) { turn.ok() ? BeginNow(step) : Leave(step, turn); };
    host_.engine.RunAside(begin, step->options);
  });
  if (!begun.ok()) Leave(step, begun);
}

void SessionDriver::BeginNow(const std::shared_ptr<Step>& step) {
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
  host_.engine.ComputeValid(**std::move(begun), 0, step->options, std::move(done));
}

// Never throws: even without memory, the step is answered or the session ends.
void SessionDriver::Leave(const std::shared_ptr<Step>& step, absl::StatusOr<AttentionResult> result) {
  SessionAnswer answer;
  const bool ok = result.ok();
  const bool quiet = ok && step->step().quiet();
  absl::Status made = absl::OkStatus();
  if (!quiet) made = memory::CatchNoMemoryIn([&] { answer = AnswerTo(step->step(), std::move(result)); });
  // A step that succeeded must not be answered with an error: if its answer cannot be made, the session ends.
  if (!made.ok() && !ok) {
    made = memory::CatchNoMemoryIn([&] { answer = AnswerTo(step->step(), memory::NoMemoryError()); });
  }
  const std::int64_t used_bytes = session_->used_bytes();
  step->request = {};  // frees the message's slices
  step->message_lease = {};
  Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    running_.reset();
    said_.set_used_bytes(used_bytes);
    if (ok) said_.set_steps(said_.steps() + 1);
    active_at_ = Clock::now();
    if (!made.ok()) FailLocked(made);
    if (!quiet) Queue(std::move(answer));
  });
}

SessionAnswer SessionDriver::AnswerTo(const v1::SessionStep& step, absl::StatusOr<AttentionResult> result) {
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

}  // namespace attnd::server
