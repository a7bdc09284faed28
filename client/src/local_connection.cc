#include "client/src/local_connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "client/src/process.h"
#include "client/src/shm_socket.h"

namespace attnd::client {
namespace {

using Clock = LocalConnection::Clock;
using Until = std::optional<Clock::time_point>;

// As gRPC has it.
absl::Status Late() { return absl::DeadlineExceededError("Deadline Exceeded"); }
absl::Status Cancelled() { return absl::CancelledError("CANCELLED"); }

absl::Status Lost(const char* call) {
  return absl::UnavailableError(
      absl::StrCat("the connection to the server was lost before the answer came: ", call, ": ", std::strerror(errno)));
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK; }

// Waits for `events` or the connection's end. False at `until`.
bool Await(int socket, short events, const Until& until) {
  while (true) {
    pollfd polled{socket, events, 0};
    timespec left{};
    if (until.has_value()) {
      const auto time = std::max(*until - Clock::now(), Clock::duration::zero());
      left = absl::ToTimespec(absl::FromChrono(time));
    }
    const int ready = ppoll(&polled, 1, until.has_value() ? &left : nullptr, nullptr);
    if (ready > 0) return true;
    if (ready == 0 && Clock::now() >= *until) return false;
    if (ready < 0 && errno != EINTR && errno != EAGAIN && errno != ENOMEM) return true;  // the next call says why
  }
}

// Interrupts the connection when the call is cancelled, until it is over. The callback may outlive this.
class CancelGuard {
 public:
  CancelGuard(const std::shared_ptr<Cancellation>& cancellation, const LocalConnection& connection)
      : cancellation_(cancellation) {
    if (cancellation_ == nullptr) return;
    call_ = std::make_shared<Call>(connection);
    id_ = cancellation_->Add([call = call_] {
      absl::MutexLock lock(&call->mutex);
      if (call->connection == nullptr) return;
      call->cancelled = true;
      call->connection->Interrupt();
    });
  }
  ~CancelGuard() { End(); }
  CancelGuard(const CancelGuard&) = delete;

  // From now on nothing is interrupted. Whether something was.
  bool End() {
    if (call_ == nullptr) return false;
    cancellation_->Remove(id_);
    absl::MutexLock lock(&call_->mutex);
    call_->connection = nullptr;
    return call_->cancelled;
  }

 private:
  struct Call {
    explicit Call(const LocalConnection& c) : connection(&c) {}
    absl::Mutex mutex;
    const LocalConnection* connection ABSL_GUARDED_BY(mutex);
    bool cancelled ABSL_GUARDED_BY(mutex) = false;
  };
  const std::shared_ptr<Cancellation> cancellation_;
  std::shared_ptr<Call> call_;
  std::int64_t id_ = -1;
};

}  // namespace

LocalConnection::Made LocalConnection::Make(const std::string& path, const std::string& user_agent,
                                            const Keepalive& keepalive, Clock::time_point until,
                                            const Cancellation* cancellation) {
  // How often the cancellation is looked at.
  constexpr auto kStep = std::chrono::milliseconds(20);
  using Outcome = Made::Outcome;
  shm::UniqueFd socket = ConnectSeqpacket(path);
  if (!socket.valid()) return {Outcome::kNobody};
  const std::string hello = EncodeHello(user_agent);
  if (SendDatagram(socket.get(), hello) != Delivery::kDone) return {Outcome::kNotOffered};
  while (!Await(socket.get(), POLLIN, std::min(until, Clock::now() + kStep))) {
    if (Clock::now() >= until || (cancellation != nullptr && cancellation->cancelled())) return {Outcome::kSilent};
  }
  unsigned char bytes[4096];
  const ssize_t size = recv(socket.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
  const auto offer = ReadWelcome({bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0))});
  if (!offer.has_value()) return {Outcome::kNotOffered};
  // For a call without a deadline recv waits, for as long as the server may be silent.
  fcntl(socket.get(), F_SETFL, 0);
  const timeval silence = absl::ToTimeval(absl::FromChrono(keepalive.time));
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
  return {Outcome::kGreeted, std::make_shared<LocalConnection>(std::move(socket), *offer, keepalive)};
}

LocalConnection::LocalConnection(shm::UniqueFd socket, const LocalOffer& offer, const Keepalive& keepalive)
    : socket_(std::move(socket)),
      offer_(offer),
      keepalive_(keepalive),
      buffer_(new unsigned char[offer.max_message_bytes]) {}

LocalConnection::~LocalConnection() { Interrupt(); }

void LocalConnection::Interrupt() const {
  // The connection of a forked child is its parent's.
  if (!Forked()) EndConnection(socket_.get());
}

std::optional<absl::Status> LocalConnection::Send(LocalMessage& message, Until until, Sent& sent) const {
  while (true) {
    switch (SendDatagram(socket_.get(), message.parts())) {
      case Delivery::kDone:
        return std::nullopt;
      case Delivery::kNotYet:
        break;
      case Delivery::kTooLarge:
        sent = Sent::kTooLarge;
        return absl::OkStatus();
      case Delivery::kBroken:
        sent = Sent::kGone;
        return absl::OkStatus();
    }
    if (!Await(socket_.get(), POLLOUT, until)) return Late();
  }
}

absl::StatusOr<std::size_t> LocalConnection::Receive(Until until, bool& silent) const {
  bool wait = until.has_value();
  bool asked = false;
  Clock::time_point heard = Clock::now();  // or asked
  while (true) {
    // Without a deadline recv itself waits, and poll only once the server has been silent or a signal has come.
    if (wait) {
      const Clock::time_point patience = heard + (asked ? keepalive_.timeout : keepalive_.time);
      if (!Await(socket_.get(), POLLIN, until.has_value() ? std::min(*until, patience) : patience)) {
        if (until.has_value() && Clock::now() >= *until) return Late();
        silent = asked;
        if (asked) return absl::UnavailableError("the server gives no sign of life");
        asked = true;
        heard = Clock::now();
        if (!AskForSign(socket_.get())) return Lost("sendmsg");
        continue;
      }
    }
    // With MSG_TRUNC the datagram's length, also where the buffer is shorter.
    const int flags = MSG_TRUNC | (wait ? MSG_DONTWAIT : 0);
    const ssize_t size = recv(socket_.get(), buffer_.get(), offer_.max_message_bytes, flags);
    if (size > 0) {
      const auto bytes = static_cast<std::size_t>(size);
      if (!IsSign({buffer_.get(), std::min(bytes, offer_.max_message_bytes)})) return bytes;
      asked = false;
      heard = Clock::now();
    } else if (size == 0) {
      errno = ECONNRESET;
      return Lost("recv");
    } else if (errno != EINTR && !WouldBlock()) {
      return Lost("recv");
    } else {
      wait = true;
    }
  }
}

LocalConnection::Result LocalConnection::Call(const ComputeRequest& request, const Shape& shape,
                                              const WireFields& fields, const CallOptions& options) {
  Result result;
  const auto with = [&result](absl::StatusOr<ComputeReply> reply, bool usable) {
    result.reply = std::move(reply);
    result.usable = usable;
    return std::move(result);
  };
  absl::Duration left = absl::InfiniteDuration();
  Until until;
  if (options.deadline != absl::InfiniteFuture()) {
    left = options.deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return with(Late(), true);
    until = Clock::now() + absl::ToChronoNanoseconds(std::min(left, absl::Hours(24 * 365)));
  }
  if (options.cancellation != nullptr && options.cancellation->cancelled()) return with(Cancelled(), true);

  LocalMessage message(request, shape, fields);
  const std::uint64_t id = next_id_++;
  message.Address(id, left);
  if (std::max(message.size(), message.answer_size()) > offer_.max_message_bytes) {
    result.sent = Sent::kTooLarge;
    return with(ComputeReply(), true);
  }
  CancelGuard guard(options.cancellation, *this);
  if (std::optional<absl::Status> ended = Send(message, until, result.sent)) {
    if (guard.End()) {
      result.sent = Sent::kYes;
      return with(Cancelled(), false);
    }
    if (result.sent != Sent::kYes) return with(ComputeReply(), result.sent == Sent::kTooLarge);
    return with(*std::move(ended), false);
  }
  const absl::StatusOr<std::size_t> size = Receive(until, result.silent);
  // An answer that has come counts, and the connection has ended all the same if the call was cancelled meanwhile.
  const bool cancelled = guard.End();
  if (!size.ok()) return with(cancelled ? Cancelled() : size.status(), false);
  if (*size > offer_.max_message_bytes) {
    return with(absl::InternalError(absl::StrCat("the server's answer: expected at most ", offer_.max_message_bytes,
                                                 " bytes, got ", *size)),
                false);
  }
  const std::optional<LocalAnswer> answer = LocalAnswer::Read({buffer_.get(), *size});
  if (!answer.has_value()) return with(absl::InternalError("the server's datagram is no answer to a call"), false);
  if (answer->id() != id) {
    return with(
        absl::InternalError(absl::StrCat("the server answered call ", answer->id(), ", which is not under way")),
        false);
  }
  return with(answer->Decode(request, shape, fields), !cancelled);
}

}  // namespace attnd::client
