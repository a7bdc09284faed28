#include "client/src/local_mux.h"

#include <poll.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/src/process.h"
#include "client/src/shm_socket.h"
#include "client/src/target.h"

namespace attnd::client {
namespace {

using Clock = LocalMux::Clock;

constexpr std::size_t kWelcomeBytes = 4096;

std::string Joined(LocalMessage& message) {
  std::string bytes;
  for (const iovec& part : message.parts()) bytes.append(static_cast<const char*>(part.iov_base), part.iov_len);
  return bytes;
}

// Datagrams received in a row before deadlines are checked again.
constexpr int kTurn = 64;

// `deadline` by the steady clock; time_point::max() if it is more than a year away.
Clock::time_point SteadyTime(absl::Time deadline) {
  const absl::Duration left = deadline - absl::Now();
  if (left > absl::Hours(24 * 365)) return Clock::time_point::max();
  return Clock::now() + absl::ToChronoNanoseconds(std::max(left, absl::ZeroDuration()));
}

timespec TimeUntil(Clock::time_point time) {
  const auto left = std::chrono::nanoseconds(time - std::min(time, Clock::now())).count();
  return {left / 1'000'000'000, left % 1'000'000'000};
}

}  // namespace

LocalMux::LocalMux(std::string path, const std::string& user_agent, const Keepalive& keepalive)
    : path_(std::move(path)), hello_(EncodeHello(user_agent)), keepalive_(keepalive) {}

std::shared_ptr<LocalMux> LocalMux::ForTarget(const std::string& target, const std::string& user_agent,
                                              const Keepalive& keepalive) {
  std::optional<std::string> path = SocketBeside(target);
  if (!path.has_value()) return nullptr;
  return std::make_shared<LocalMux>(*std::move(path), user_agent, keepalive);
}

absl::Status LocalMux::Lost(absl::string_view why) const {
  return absl::UnavailableError(absl::StrCat("the connection to ", path_, " was lost: ", why));
}

bool LocalMux::HasThread() {
  return thread_.Start([self = shared_from_this()] { self->Run(); });
}

bool LocalMux::IsSettled() { return !broken_ && (state_ == State::kOpen || (state_ == State::kApart && Resting())); }

bool LocalMux::Settle(absl::Time deadline, std::function<void()> settled) {
  absl::MutexLock lock(&mutex_);
  if (stopping_ || IsSettled() || !HasThread()) return true;
  waiters_.push_back({std::min(SteadyTime(deadline), Clock::now() + kPatience), std::move(settled)});
  thread_.Wake();
  return false;
}

bool LocalMux::Offered() {
  absl::MutexLock lock(&mutex_);
  return state_ == State::kOpen && !broken_;
}

void LocalMux::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  thread_.Wake();
}

LocalMux::Started LocalMux::Start(const ComputeRequest& request, const Shape& shape, const WireFields& fields,
                                  const CallOptions& options, ComputeCallback done) {
  const std::uint64_t id = next_id_.fetch_add(1);
  const absl::Duration left =
      options.deadline == absl::InfiniteFuture() ? absl::InfiniteDuration() : options.deadline - absl::Now();
  auto call = std::make_unique<Call>();
  call->request = &request;
  call->shape = shape;
  call->fields = fields;
  call->done = std::move(done);
  call->deadline = SteadyTime(options.deadline);
  call->cancellation = options.cancellation;
  if (options.cancellation != nullptr) {
    // A cancellation that comes before the call is registered finds nothing to cancel; it is checked again below.
    const std::weak_ptr<LocalMux> weak = weak_from_this();
    call->cancel_id = options.cancellation->Add([weak, id] {
      // In a forked child the calls belong to the parent.
      const auto self = Forked() ? nullptr : weak.lock();
      if (self != nullptr) self->Cancel(id);
    });
  }
  const std::int64_t cancel_id = call->cancel_id;
  LocalMessage message(request, shape, fields);
  message.Address(id, std::max(left, absl::ZeroDuration()));
  const Started started = Begin(id, message, std::move(call));
  if (options.cancellation == nullptr) return started;
  if (started != Started::kYes) {
    options.cancellation->Remove(cancel_id);
  } else if (options.cancellation->cancelled()) {
    Cancel(id);
  }
  return started;
}

LocalMux::Started LocalMux::Begin(std::uint64_t id, LocalMessage& message, CallPtr call) {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kOpen || broken_) return Started::kBroken;
  if (calls_.size() >= offer_.max_calls) return Started::kNoRoom;
  if (std::max(message.size(), message.answer_size()) > offer_.max_message_bytes) return Started::kNoRoom;
  switch (outbox_.empty() ? SendDatagram(socket_.get(), message.parts()) : Delivery::kNotYet) {
    case Delivery::kDone:
      break;
    case Delivery::kNotYet:
      outbox_.push_back(Joined(message));
      thread_.Wake();
      break;
    case Delivery::kTooLarge:
      return Started::kNoRoom;
    case Delivery::kBroken:
      broken_ = true;
      thread_.Wake();
      return Started::kBroken;
  }
  if (calls_.empty()) {
    silent_since_ = Clock::now();
    asked_for_life_ = false;
  }
  const Clock::time_point deadline = call->deadline;
  if (deadline != Clock::time_point::max()) deadlines_.emplace(deadline, id);
  if (std::min(deadline, silent_since_ + keepalive_.time) < wakes_at_) thread_.Wake();
  calls_.emplace(id, std::move(call));
  return Started::kYes;
}

void LocalMux::Cancel(std::uint64_t id) {
  absl::MutexLock lock(&mutex_);
  const auto found = calls_.find(id);
  if (found == calls_.end() || found->second == nullptr) return;
  EndEarly(id, absl::CancelledError("CANCELLED"));
  thread_.Wake();
}

void LocalMux::EndEarly(std::uint64_t id, const absl::Status& status) {
  CallPtr& call = calls_[id];
  if (call->deadline != Clock::time_point::max()) deadlines_.erase({call->deadline, id});
  ended_.push_back({std::move(call), status});
  call = nullptr;
  if (!Send(EncodeCancel(id))) broken_ = true;
}

bool LocalMux::Send(std::string bytes) {
  if (outbox_.empty()) {
    const Delivery sent = SendDatagram(socket_.get(), bytes);
    if (sent != Delivery::kNotYet) return sent == Delivery::kDone;
  }
  outbox_.push_back(std::move(bytes));
  return true;
}

void LocalMux::Complete(CallPtr call, absl::StatusOr<ComputeReply> reply) {
  if (call->cancellation != nullptr) call->cancellation->Remove(call->cancel_id);
  call->done(std::move(reply));
}

void LocalMux::Run() {
  while (true) {
    std::vector<std::function<void()>> settled;
    std::vector<Ended> ended;
    std::array<pollfd, 2> polled{};
    timespec time{};
    bool stop = false;
    {
      absl::MutexLock lock(&mutex_);
      thread_.Clear();
      Step();
      stop = stopping_;
      settled = TakeSettled(Clock::now());
      ended.swap(ended_);
      // Never later than the time already set, so that a call with the usual deadline need not wake the thread. Waking
      // early is cheap.
      const Clock::time_point next = NextTime();
      if (next < wakes_at_ || wakes_at_ <= Clock::now()) wakes_at_ = next;
      time = TimeUntil(wakes_at_);
      polled[0] = {thread_.fd(), POLLIN, 0};
      polled[1] = {socket_.get(), static_cast<short>(outbox_.empty() ? POLLIN : POLLIN | POLLOUT), 0};
    }
    for (Ended& call : ended) Complete(std::move(call.call), std::move(call.status));
    for (const auto& call : settled) call();
    // The callbacks hold their calls and thereby the client, which may be destroyed while this thread waits.
    ended.clear();
    settled.clear();
    if (stop) return;
    // The result does not matter: Step checks the state itself.
    ppoll(polled.data(), polled.size(), &time, nullptr);
    if ((polled[1].revents & ~POLLOUT) != 0) Receive();
  }
}

void LocalMux::Step() {
  const Clock::time_point now = Clock::now();
  if (stopping_) return Drop(Lost("the client was destroyed"), Clock::duration::zero());
  if (broken_) Drop(Lost("it was closed"), Clock::duration::zero());
  if (state_ == State::kGreeting && now >= greeted_by_) Drop(absl::OkStatus(), kRestAfterRefusal);
  if (state_ == State::kApart && !waiters_.empty() && !Resting()) Connect();
  if (state_ == State::kApart) return;
  Flush();
  Expire(now);
  LookForLife(now);
}

void LocalMux::Connect() {
  socket_ = ConnectSeqpacket(path_);
  if (!socket_.valid() || SendDatagram(socket_.get(), hello_) != Delivery::kDone) {
    return Drop(absl::OkStatus(), kRest);
  }
  state_ = State::kGreeting;
  greeted_by_ = Clock::now() + kPatience;
  buffer_.resize(std::max(buffer_.size(), kWelcomeBytes));
}

void LocalMux::Flush() {
  while (!outbox_.empty()) {
    const Delivery sent = SendDatagram(socket_.get(), outbox_.front());
    if (sent == Delivery::kNotYet) return;
    if (sent != Delivery::kDone) return Drop(Lost("it was closed"), Clock::duration::zero());
    outbox_.pop_front();
  }
}

void LocalMux::Expire(Clock::time_point now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now)
    EndEarly(deadlines_.begin()->second, absl::DeadlineExceededError("Deadline Exceeded"));
}

void LocalMux::LookForLife(Clock::time_point now) {
  if (calls_.empty() || state_ != State::kOpen) return;
  if (now < silent_since_ + (asked_for_life_ ? keepalive_.timeout : keepalive_.time)) return;
  if (asked_for_life_ || AskForSign(socket_.get()) == Transfer::kBroken) {
    return Drop(Lost("the server gives no sign of life"), kRest);
  }
  asked_for_life_ = true;
  silent_since_ = now;
}

void LocalMux::Drop(const absl::Status& status, Clock::duration rest) {
  // No effect if the server has already ended the connection.
  if (socket_.valid()) EndConnection(socket_.get());
  socket_ = shm::UniqueFd();
  state_ = State::kApart;
  broken_ = false;
  if (rest > Clock::duration::zero()) next_attempt_ = Clock::now() + rest;
  for (auto& [id, call] : calls_) {
    if (call != nullptr) ended_.push_back({std::move(call), status});
  }
  calls_.clear();
  deadlines_.clear();
  outbox_.clear();
}

void LocalMux::Receive() {
  for (int i = 0; i < kTurn; ++i) {
    int socket = -1;
    {
      absl::MutexLock lock(&mutex_);
      // If no call is pending, usually nothing more arrives: this saves a system call.
      if (!socket_.valid() || (i > 0 && calls_.empty())) return;
      socket = socket_.get();
    }
    absl::Span<const unsigned char> datagram;
    const Transfer received = ReceiveDatagram(socket, absl::MakeSpan(buffer_), datagram);
    if (received == Transfer::kNotYet) return;
    if (received == Transfer::kBroken) {
      absl::MutexLock lock(&mutex_);
      const bool greeting = state_ == State::kGreeting;
      return Drop(Lost("it was closed"), greeting ? kRest : Clock::duration::zero());
    }
    std::optional<LocalAnswer> answer;
    CallPtr call = Take(datagram, answer);
    if (call == nullptr) continue;
    const Call& what = *call;
    absl::StatusOr<ComputeReply> reply = answer->Decode(*what.request, what.shape, what.fields);
    if (reply.ok()) reply->transport = Transport::kLocal;
    Complete(std::move(call), std::move(reply));
  }
}

LocalMux::CallPtr LocalMux::Take(absl::Span<const unsigned char> datagram, std::optional<LocalAnswer>& answer) {
  absl::MutexLock lock(&mutex_);
  silent_since_ = Clock::now();
  asked_for_life_ = false;
  if (state_ == State::kGreeting) {
    const std::optional<LocalOffer> offer = ReadWelcome(datagram);
    if (!offer.has_value()) {
      Drop(absl::OkStatus(), kRestAfterRefusal);
      return nullptr;
    }
    offer_ = *offer;
    buffer_.resize(std::max(buffer_.size(), offer->max_message_bytes));
    offer_.max_message_bytes = std::min(offer_.max_message_bytes, LargestDatagram(socket_.get()));
    state_ = State::kOpen;
    return nullptr;
  }
  if (IsFixedReply(datagram)) return nullptr;
  answer = LocalAnswer::Read(datagram);
  const auto found = answer.has_value() ? calls_.find(answer->id()) : calls_.end();
  if (found == calls_.end()) {
    Drop(absl::InternalError(answer.has_value() ? "the server answered a call that is not under way"
                                                : "the server's datagram is no answer to a call"),
         kRestAfterRefusal);
    return nullptr;
  }
  CallPtr call = std::move(found->second);
  calls_.erase(found);
  if (call != nullptr && call->deadline != Clock::time_point::max()) deadlines_.erase({call->deadline, answer->id()});
  return call;
}

std::vector<std::function<void()>> LocalMux::TakeSettled(Clock::time_point now) {
  std::vector<std::function<void()>> settled;
  const bool all = stopping_ || IsSettled();
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    if (!all && now < waiter->deadline) {
      ++waiter;
      continue;
    }
    settled.push_back(std::move(waiter->settled));
    waiter = waiters_.erase(waiter);
  }
  return settled;
}

LocalMux::Clock::time_point LocalMux::NextTime() const {
  Clock::time_point next = Clock::now() + std::chrono::hours(1);
  for (const Waiter& waiter : waiters_) next = std::min(next, waiter.deadline);
  if (state_ == State::kGreeting) next = std::min(next, greeted_by_);
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  if (!calls_.empty()) {
    next = std::min(next, silent_since_ + (asked_for_life_ ? keepalive_.timeout : keepalive_.time));
  }
  return next;
}

}  // namespace attnd::client
