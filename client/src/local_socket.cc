#include "client/src/local_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/src/process.h"

namespace attnd::client {
namespace {

using Clock = LocalSocket::Clock;
using ByteSpan = absl::Span<const unsigned char>;

// Maximum number of datagrams that the server may send unasked while memory is being registered: that it is stopping,
// and that the session has ended.
constexpr std::size_t kMaxEarly = 8;

absl::Status Lost(const char* call) {
  return absl::UnavailableError(
      absl::StrCat("the connection to the server was lost before the answer came: ", call, ": ", std::strerror(errno)));
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK; }

// Waits for `events` or the connection's end. Returns false at `until`.
bool Await(int socket, short events, const LocalSocket::Until& until) {
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

}  // namespace

LocalSocket::Made LocalSocket::Make(const std::string& path, const std::string& user_agent, const Keepalive& keepalive,
                                    Clock::time_point until, const Cancellation* cancellation) {
  // How often the cancellation is checked.
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
  // For calls without a deadline, recv blocks for as long as the server may be silent.
  fcntl(socket.get(), F_SETFL, 0);
  const timeval silence = absl::ToTimeval(absl::FromChrono(keepalive.time));
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
  return {Outcome::kGreeted, std::make_unique<LocalSocket>(std::move(socket), *offer, keepalive)};
}

LocalSocket::LocalSocket(shm::UniqueFd socket, const LocalOffer& offer, const Keepalive& keepalive)
    : socket_(std::move(socket)),
      offer_(offer),
      keepalive_(keepalive),
      buffer_(new unsigned char[offer.max_message_bytes]) {}

LocalSocket::~LocalSocket() { Interrupt(); }

void LocalSocket::Interrupt() const {
  // In a forked child the connection belongs to the parent.
  if (!Forked()) EndConnection(socket_.get());
}

std::size_t LocalSocket::largest() const { return std::min(offer_.max_message_bytes, LargestDatagram(socket_.get())); }

Delivery LocalSocket::Send(absl::Span<const iovec> pieces, Until until) const {
  while (true) {
    const Delivery delivery = SendDatagram(socket_.get(), pieces);
    if (delivery != Delivery::kNotYet || !Await(socket_.get(), POLLOUT, until)) return delivery;
  }
}

absl::StatusOr<ByteSpan> LocalSocket::Receive(Until until) {
  if (early_.empty()) return Next(until);
  current_ = std::move(early_.front());
  early_.pop_front();
  return ByteSpan(reinterpret_cast<const unsigned char*>(current_.data()), current_.size());
}

absl::StatusOr<ByteSpan> LocalSocket::Next(Until until) {
  bool wait = until.has_value();
  bool asked = false;
  Clock::time_point heard = Clock::now();  // or pinged
  while (true) {
    // Without a deadline, recv blocks; poll is used only after the server was silent or a signal interrupted recv.
    if (wait) {
      const Clock::time_point patience = heard + (asked ? keepalive_.timeout : keepalive_.time);
      if (!Await(socket_.get(), POLLIN, until.has_value() ? std::min(*until, patience) : patience)) {
        // gRPC's message.
        if (until.has_value() && Clock::now() >= *until) return absl::DeadlineExceededError("Deadline Exceeded");
        silent_ = asked;
        if (asked) return absl::UnavailableError("the server gives no sign of life");
        asked = true;
        heard = Clock::now();
        const Transfer sent = AskForSign(socket_.get());
        if (sent == Transfer::kBroken) return Lost("sendmsg");
        if (sent == Transfer::kDone) ++asked_;
        continue;
      }
    }
    // MSG_TRUNC returns the datagram's length even if the buffer is shorter.
    const int flags = MSG_TRUNC | (wait ? MSG_DONTWAIT : 0);
    const ssize_t size = recv(socket_.get(), buffer_.get(), offer_.max_message_bytes, flags);
    if (size > 0) {
      const auto bytes = static_cast<std::size_t>(size);
      if (bytes > offer_.max_message_bytes) {
        return absl::InternalError(
            absl::StrCat("the server's answer: expected at most ", offer_.max_message_bytes, " bytes, got ", bytes));
      }
      const ByteSpan datagram(buffer_.get(), bytes);
      if (!IsFixedReply(datagram) || answered_++ == registration_) return datagram;
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

absl::StatusOr<shm::Reply> LocalSocket::Register(int memory, std::size_t size, Until until) {
  shm::Request request = FixedRequest(shm::Operation::kRegister);
  request.size = size;
  Transfer sent;
  while ((sent = SendRequest(socket_.get(), request, memory)) == Transfer::kNotYet) {
    if (!Await(socket_.get(), POLLOUT, until)) return absl::DeadlineExceededError("Deadline Exceeded");
  }
  if (sent == Transfer::kBroken) return Lost("sendmsg");
  registration_ = asked_++;
  while (true) {
    const absl::StatusOr<ByteSpan> datagram = Next(until);
    if (!datagram.ok()) {
      registration_.reset();
      return datagram.status();
    }
    if (IsFixedReply(*datagram)) {
      registration_.reset();
      shm::Reply reply;
      std::memcpy(&reply, datagram->data(), sizeof(reply));
      return reply;
    }
    if (early_.size() == kMaxEarly) return absl::InternalError("the server answers what it was not asked");
    early_.emplace_back(reinterpret_cast<const char*>(datagram->data()), datagram->size());
  }
}

void LocalSocket::Release(const shm::Handle& handle) {
  shm::Request request = FixedRequest(shm::Operation::kRelease);
  request.handle = handle;
  if (SendRequest(socket_.get(), request, -1) == Transfer::kDone) ++asked_;
}

CancelGuard::CancelGuard(std::shared_ptr<Cancellation> cancellation, const LocalSocket& socket)
    : cancellation_(std::move(cancellation)) {
  if (cancellation_ == nullptr) return;
  call_ = std::make_shared<Call>(socket);
  id_ = cancellation_->Add([call = call_] {
    absl::MutexLock lock(&call->mutex);
    if (call->socket == nullptr) return;
    call->cancelled = true;
    call->socket->Interrupt();
  });
}

bool CancelGuard::cancelled() const {
  if (call_ == nullptr) return false;
  absl::MutexLock lock(&call_->mutex);
  return call_->cancelled;
}

bool CancelGuard::End() {
  if (call_ == nullptr) return false;
  cancellation_->Remove(id_);
  absl::MutexLock lock(&call_->mutex);
  call_->socket = nullptr;
  return call_->cancelled;
}

}  // namespace attnd::client
