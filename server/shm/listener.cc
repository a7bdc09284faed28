#include "server/shm/listener.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "memory/no_memory.h"
#include "server/net/unix_socket.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

// Owner numbers are unique over all listeners of the process, which share one SharedMemory.
std::atomic<SharedMemory::Owner> next_owner{1};

// How long accepting is suspended when a connection cannot be accepted, and how often callers that do not read their
// answers are checked.
constexpr std::chrono::milliseconds kLook(100);

bool WatchFor(const shm::UniqueFd& epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  return epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

Peer PeerOf(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  Peer peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) peer = {credentials.uid, credentials.pid};
  return peer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedMemoryListener>> SharedMemoryListener::Create(const std::string& path,
                                                                                   const ListenerOptions& options,
                                                                                   std::shared_ptr<SharedMemory> memory,
                                                                                   LocalCalls& calls) {
  absl::StatusOr<ListeningSocket> listener = ListenUnix(path, SOCK_SEQPACKET, options.mode);
  if (!listener.ok()) return listener.status();
  shm::UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!wake.valid() || !epoll.valid() || !WatchFor(epoll, wake.get())) {
    return absl::ErrnoToStatus(errno, "cannot wait for connections");
  }
  return std::unique_ptr<SharedMemoryListener>(
      new SharedMemoryListener(std::make_unique<ListeningSocket>(*std::move(listener)), options, std::move(wake),
                               std::move(epoll), std::move(memory), calls));
}

SharedMemoryListener::SharedMemoryListener(std::unique_ptr<ListeningSocket> listener, const ListenerOptions& options,
                                           shm::UniqueFd wake, shm::UniqueFd epoll,
                                           std::shared_ptr<SharedMemory> memory, LocalCalls& calls)
    : listener_(std::move(listener)),
      options_(options),
      wake_(std::move(wake)),
      epoll_(std::move(epoll)),
      memory_(std::move(memory)),
      calls_(calls),
      watch_(std::make_shared<PeerSocket::Watch>(epoll_.get(), wake_.get())),
      buffer_(kMaxDatagramBytes),
      thread_([this] { Run(); }) {}

SharedMemoryListener::~SharedMemoryListener() {
  StopAccepting();
  stop_.store(true);
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void SharedMemoryListener::StopAccepting() {
  absl::MutexLock lock(&accepting_mutex_);
  listener_->Close();
}

bool SharedMemoryListener::Looks() const { return resting_ || watch_->stuck.load() > 0; }

void SharedMemoryListener::WatchListener(bool watch) {
  absl::MutexLock lock(&accepting_mutex_);
  if (!listener_->fd.valid() || watch == accepting_) return;
  if (watch) {
    accepting_ = WatchFor(epoll_, listener_->fd.get());
  } else {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_->fd.get(), nullptr);
    accepting_ = false;
  }
}

void SharedMemoryListener::Run() {
  std::array<epoll_event, 64> events;
  while (!stop_.load()) {
    WatchListener(!resting_);
    const int milliseconds = Looks() ? static_cast<int>(kLook.count()) : -1;
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), milliseconds);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      const int fd = event.data.fd;
      if (fd == wake_.get()) {
        eventfd_t ignored = 0;
        eventfd_read(wake_.get(), &ignored);
      } else if (const auto client = clients_.find(fd); client != clients_.end()) {
        Handle(client, event.events);
      } else {
        Accept();
      }
    }
    Look();
  }
  TakeTheRest();
}

void SharedMemoryListener::Look() {
  if (!Looks()) return;
  const PeerSocket::Clock::time_point now = PeerSocket::Clock::now();
  if (now < next_look_) return;
  next_look_ = now + kLook;
  resting_ = false;
  EndStuck();
}

void SharedMemoryListener::Accept() {
  shm::UniqueFd fd;
  {
    absl::MutexLock lock(&accepting_mutex_);
    if (!listener_->fd.valid()) return;
    if (closer_.waiting() >= kMaxClosing) return Rest();
    fd = shm::UniqueFd(accept4(listener_->fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    // Otherwise the waiting connection would wake this thread again and again.
    const bool full = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
    if (!fd.valid() && full) Rest();
  }
  // Without memory for a connection, it is closed and accepting is suspended.
  if (fd.valid() && !memory::CatchNoMemoryIn([&] { Add(std::move(fd)); }).ok()) Rest();
}

void SharedMemoryListener::Rest() {
  resting_ = true;
  next_look_ = PeerSocket::Clock::now() + kLook;
}

void SharedMemoryListener::Add(shm::UniqueFd fd) {
  const int number = fd.get();
  const Peer peer = PeerOf(number);
  const auto socket = std::make_shared<PeerSocket>(std::move(fd), watch_);
  if (clients_.size() >= kMaxConnections || !socket->Begin()) {
    closer_.Close(socket->Close());
    return;
  }
  // The socket is already watched: it must be closed here, or its events would have no client.
  const absl::Status added = memory::CatchNoMemoryIn([&] {
    auto connection = std::make_unique<Connection>(next_owner.fetch_add(1), UserName(peer), memory_.get(), closer_,
                                                   unmapper_, socket, calls_.Connect(peer, socket));
    clients_.emplace(number, Client{peer, socket, std::move(connection)});
  });
  if (added.ok()) return;
  closer_.Close(socket->Close());
  Rest();
}

void SharedMemoryListener::Handle(Clients::iterator client, std::uint32_t events) {
  // The peer is gone and reads no answer.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return End(client);
  if ((events & EPOLLOUT) != 0) client->second.socket->Flush();
  if ((events & EPOLLIN) != 0 && Serve(client->second) == Turn::kEnded) End(client);
}

SharedMemoryListener::Turn SharedMemoryListener::Serve(Client& client) {
  Turn turn = Turn::kEnded;
  // If there is not even memory for a refusal, the connection ends.
  const absl::Status served = memory::CatchNoMemoryIn([&] { turn = ServeNext(client); });
  return served.ok() ? turn : Turn::kEnded;
}

SharedMemoryListener::Turn SharedMemoryListener::ServeNext(Client& client) {
  bool ended = false;
  std::optional<Datagram> datagram = client.socket->Receive(absl::MakeSpan(buffer_), ended);
  if (!datagram.has_value()) return ended ? Turn::kEnded : Turn::kNothing;
  absl::Status status;
  if (ended || !datagram->whole) {
    for (shm::UniqueFd& fd : datagram->descriptors) closer_.Close(std::move(fd));
    if (ended && datagram->descriptors.empty()) return Turn::kEnded;
    status = absl::InvalidArgumentError("a datagram that is too large, empty, or has descriptors that found no room");
  } else {
    status = client.connection->Take(datagram->bytes, std::move(datagram->descriptors));
  }
  if (status.ok()) return Turn::kTaken;
  spdlog::debug("ended a local connection of user {}, process {}: {}", client.peer.uid, client.peer.pid,
                std::string(status.message()));
  return Turn::kEnded;
}

void SharedMemoryListener::End(Clients::iterator client) {
  // Cancel the caller's calls and drop its memory before it sees the end.
  client->second.connection.reset();
  closer_.Close(client->second.socket->Close());
  clients_.erase(client);
}

void SharedMemoryListener::EndStuck() {
  const PeerSocket::Clock::time_point latest = PeerSocket::Clock::now() - options_.patience;
  for (auto next = clients_.begin(); next != clients_.end();) {
    const auto client = next++;
    const std::optional<PeerSocket::Clock::time_point> since = client->second.socket->StuckSince();
    if (!since.has_value() || *since > latest) continue;
    spdlog::debug("ended a local connection of user {}, process {}, which does not read its answers",
                  client->second.peer.uid, client->second.peer.pid);
    End(client);
  }
}

void SharedMemoryListener::TakeTheRest() {
  for (auto& [fd, client] : clients_) {
    // No more can arrive. What has arrived is answered if there is room.
    client.socket->StopReceiving();
    while (Serve(client) == Turn::kTaken) {
    }
  }
  while (!clients_.empty()) End(clients_.begin());
}

}  // namespace attnd::server
