#include "server/shm/listener.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "errors/shown.h"
#include "server/net/unix_socket.h"

namespace attnd::server {
namespace {

// Owners are counted over all listeners of the process, which share one SharedMemory.
std::atomic<SharedMemory::Owner> next_owner{1};

// How long the socket rests after the system had no descriptor left for a new connection.
constexpr int kRestMilliseconds = 100;

bool Watch(const shm::UniqueFd& epoll, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  return epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// The descriptor in a received message. The kernel puts in no more than fit in `control` and closes the others.
shm::UniqueFd DescriptorIn(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(part), sizeof(fd));
    return shm::UniqueFd(fd);
  }
  return shm::UniqueFd();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedMemoryListener>> SharedMemoryListener::Create(
    const std::string& path, mode_t mode, std::shared_ptr<SharedMemory> memory) {
  absl::StatusOr<ListeningSocket> listener = ListenUnix(path, SOCK_SEQPACKET, mode);
  if (!listener.ok()) return listener.status();
  shm::UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!stop.valid() || !epoll.valid() || !Watch(epoll, stop.get(), EPOLLIN)) {
    return absl::ErrnoToStatus(errno, "cannot wait for connections");
  }
  return std::unique_ptr<SharedMemoryListener>(new SharedMemoryListener(
      std::make_unique<ListeningSocket>(*std::move(listener)), std::move(stop), std::move(epoll), std::move(memory)));
}

SharedMemoryListener::SharedMemoryListener(std::unique_ptr<ListeningSocket> listener, shm::UniqueFd stop,
                                           shm::UniqueFd epoll, std::shared_ptr<SharedMemory> memory)
    : listener_(std::move(listener)),
      stop_(std::move(stop)),
      epoll_(std::move(epoll)),
      memory_(std::move(memory)),
      thread_([this] { Run(); }) {}

SharedMemoryListener::~SharedMemoryListener() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
  listener_->Close();
  for (const auto& [fd, connection] : connections_) memory_->Drop(connection.owner);
}

void SharedMemoryListener::WatchListener(bool watch) {
  if (watch == accepting_) return;
  if (watch) {
    accepting_ = Watch(epoll_, listener_->fd.get(), EPOLLIN);
  } else {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_->fd.get(), nullptr);
    accepting_ = false;
  }
}

void SharedMemoryListener::Run() {
  std::array<epoll_event, 64> events;
  while (true) {
    WatchListener(true);
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == stop_.get()) return;
      if (fd == listener_->fd.get()) {
        Accept();
      } else if (const auto found = connections_.find(fd); found != connections_.end() && !Serve(found->second)) {
        Close(fd);
      }
    }
    if (!accepting_) usleep(kRestMilliseconds * 1000);
  }
}

void SharedMemoryListener::Accept() {
  shm::UniqueFd fd(accept4(listener_->fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid()) {
    // Without a rest a waiting connection would wake us again at once, over and over.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) WatchListener(false);
    return;
  }
  if (connections_.size() >= kMaxConnections || !Watch(epoll_, fd.get(), EPOLLIN)) return;
  const int number = fd.get();
  connections_.emplace(number, Connection{std::move(fd), next_owner.fetch_add(1)});
}

void SharedMemoryListener::Close(int fd) {
  const auto found = connections_.find(fd);
  memory_->Drop(found->second.owner);
  connections_.erase(found);
}

bool SharedMemoryListener::Serve(const Connection& connection) {
  shm::Request request;
  iovec data{&request, sizeof(request)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_LEN(sizeof(int));  // CMSG_SPACE would let a second descriptor in
  const ssize_t size = recvmsg(connection.fd.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  shm::UniqueFd memory = DescriptorIn(message);
  if (size != sizeof(request) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return false;
  if (request.magic != shm::kMagic) return false;
  // Closes the descriptor: the mapping needs it no more.
  const shm::Reply reply = Answer(connection.owner, request, std::move(memory));
  return send(connection.fd.get(), &reply, sizeof(reply), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(reply);
}

shm::Reply SharedMemoryListener::Answer(SharedMemory::Owner owner, const shm::Request& request, shm::UniqueFd memory) {
  shm::Reply reply{};
  reply.magic = shm::kMagic;
  reply.version = shm::kVersion;
  absl::Status status;
  if (request.version != shm::kVersion) {
    status = absl::UnimplementedError(absl::StrCat("version: expected ", shm::kVersion, ", got ", request.version));
  } else if (request.operation == shm::Operation::kRegister) {
    const absl::StatusOr<shm::Handle> handle = memory_->Register(owner, memory.get(), request.size);
    status = handle.status();
    if (handle.ok()) reply.handle = *handle;
  } else if (request.operation == shm::Operation::kRelease) {
    status = memory_->Release(owner, request.handle);
  } else {
    status = absl::UnimplementedError(absl::StrCat("operation: expected 1 (register) or 2 (release), got ",
                                                   static_cast<std::uint32_t>(request.operation)));
  }
  reply.code = static_cast<std::int32_t>(status.code());
  const absl::string_view message = errors::CutAtCharacter(status.message(), sizeof(reply.message) - 1);
  std::copy(message.begin(), message.end(), reply.message);
  return reply;
}

}  // namespace attnd::server
