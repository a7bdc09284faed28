#include "server/shm/peer_socket.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "memory/no_memory.h"

namespace attnd::server {
namespace {

// The most descriptors that Linux takes in one message (SCM_MAX_FD). The kernel would close further ones on the
// receiving thread, which must not wait for that.
constexpr std::size_t kMaxDescriptors = 253;

// Returns false without memory for the descriptors, which are then closed.
bool TakeDescriptors(msghdr& message, std::vector<shm::UniqueFd>& descriptors) {
  if (CMSG_FIRSTHDR(&message) == nullptr) return true;
  std::array<shm::UniqueFd, kMaxDescriptors> taken;
  std::size_t size = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count && size < taken.size(); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      taken[size++] = shm::UniqueFd(fd);
    }
  }
  return memory::CatchNoMemoryIn([&] {
           descriptors.reserve(size);
           for (std::size_t i = 0; i < size; ++i) descriptors.push_back(std::move(taken[i]));
         })
      .ok();
}

}  // namespace

bool PeerSocket::Begin() {
  absl::MutexLock lock(&mutex_);
  return WatchNow(EPOLL_CTL_ADD);
}

bool PeerSocket::WatchNow(int operation) {
  epoll_event event{};
  if (!kept_.empty()) {
    event.events = EPOLLOUT;
  } else if (!paused_) {
    event.events = EPOLLIN;
  }
  event.data.fd = fd_.get();
  return epoll_ctl(watch_->epoll, operation, fd_.get(), &event) == 0;
}

PeerSocket::Sent PeerSocket::TrySend(absl::string_view datagram) {
  while (true) {
    if (send(fd_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Sent::kYes;
    if (errno == EAGAIN) return Sent::kNoRoom;
    if (errno != EINTR) return Sent::kBroken;
  }
}

void PeerSocket::Send(std::string datagram, std::shared_ptr<const void> held) {
  // `held` is destroyed after the lock is released, because its destructor may wait.
  absl::MutexLock lock(&mutex_);
  if (!fd_.valid()) return;
  const bool first = kept_.empty();
  if (first) {
    switch (TrySend(datagram)) {
      case Sent::kYes:
        return;
      case Sent::kBroken:
        return Break();
      case Sent::kNoRoom:
        break;
    }
  }
  if (!memory::CatchNoMemoryIn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
         kept_.push_back({std::move(datagram), std::move(held)});
       }).ok())
    return Break();
  if (!first) return;
  stuck_since_ = Clock::now();
  watch_->stuck.fetch_add(1);
  WatchNow(EPOLL_CTL_MOD);
  eventfd_write(watch_->wake, 1);
}

void PeerSocket::Pause() {
  absl::MutexLock lock(&mutex_);
  paused_ = true;
  if (fd_.valid()) WatchNow(EPOLL_CTL_MOD);
}

void PeerSocket::Resume() {
  absl::MutexLock lock(&mutex_);
  paused_ = false;
  if (fd_.valid()) WatchNow(EPOLL_CTL_MOD);
}

void PeerSocket::Flush() {
  std::list<Kept> sent;  // freed without the lock
  absl::MutexLock lock(&mutex_);
  if (!fd_.valid() || kept_.empty()) return;
  while (!kept_.empty()) {
    const Sent result = TrySend(kept_.front().datagram);
    if (result == Sent::kNoRoom) return;
    if (result == Sent::kBroken) return Break();
    sent.splice(sent.end(), kept_, kept_.begin());
    stuck_since_ = Clock::now();
  }
  watch_->stuck.fetch_sub(1);
  WatchNow(EPOLL_CTL_MOD);
}

void PeerSocket::Break() {
  // Reported as EPOLLHUP, whatever events are watched.
  shutdown(fd_.get(), SHUT_RDWR);
}

std::optional<Datagram> PeerSocket::Receive(absl::Span<char> buffer, bool& ended) {
  ended = false;
  int fd = -1;
  {
    absl::MutexLock lock(&mutex_);
    if (!fd_.valid() || !kept_.empty() || paused_) return std::nullopt;
    fd = fd_.get();  // only this thread closes it
  }
  iovec data{buffer.data(), buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control;
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0) {
    ended = errno != EAGAIN && errno != EINTR;
    return std::nullopt;
  }
  Datagram datagram;
  const bool taken = TakeDescriptors(message, datagram.descriptors);
  // The end of the connection, or an empty datagram, which is not a message either.
  ended = size == 0;
  datagram.whole = taken && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  datagram.bytes = absl::string_view(buffer.data(), static_cast<std::size_t>(size));
  return datagram;
}

std::optional<PeerSocket::Clock::time_point> PeerSocket::StuckSince() const {
  absl::MutexLock lock(&mutex_);
  if (kept_.empty()) return std::nullopt;
  return stuck_since_;
}

void PeerSocket::StopReceiving() {
  absl::MutexLock lock(&mutex_);
  if (fd_.valid()) shutdown(fd_.get(), SHUT_RD);
}

shm::UniqueFd PeerSocket::Close() {
  std::list<Kept> lost;  // freed without the lock
  absl::MutexLock lock(&mutex_);
  if (!fd_.valid()) return {};
  if (!kept_.empty()) watch_->stuck.fetch_sub(1);
  lost.swap(kept_);
  epoll_ctl(watch_->epoll, EPOLL_CTL_DEL, fd_.get(), nullptr);
  shutdown(fd_.get(), SHUT_RDWR);
  return shm::UniqueFd(fd_.release());
}

}  // namespace attnd::server
