#include "server/net/acceptor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "memory/no_memory.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

// How long the thread does not poll the sockets after the system could not give a connection. Otherwise the waiting
// connection would wake the thread again at once, in a busy loop.
constexpr int kRestMilliseconds = 100;

// How many connections are accepted at one socket before the others have their turn.
constexpr int kTurn = 64;

// Whether the error of accept concerns one connection that is gone, or its network; the next one may be fine.
bool IsOfOneConnection(int error) {
  constexpr int kErrors[] = {EINTR,     ECONNABORTED, EPROTO,     EPERM,        ENETDOWN,   ENOPROTOOPT,
                             EHOSTDOWN, ENONET,       EOPNOTSUPP, EHOSTUNREACH, ENETUNREACH};
  return std::find(std::begin(kErrors), std::end(kErrors), error) != std::end(kErrors);
}

// The peer at the other end, under the name that its calls have (server/rpc/peers.h). Nullopt if the system no longer
// knows it: gRPC would refuse such a connection and log an error.
std::optional<std::string> PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return std::nullopt;
  std::array<char, INET6_ADDRSTRLEN> host{};
  if (address.ss_family == AF_INET) {
    const auto* const v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, host.data(), host.size());
    return PeerName(absl::StrCat("ipv4:", host.data(), ":1"));
  }
  if (address.ss_family == AF_INET6) {
    const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    inet_ntop(AF_INET6, &v6->sin6_addr, host.data(), host.size());
    return PeerName(absl::StrCat("ipv6:[", host.data(), "]:1"));
  }
  return PeerName("unix:");
}

}  // namespace

class Acceptor::Complaint {
 public:
  void Make(const std::string& words) {
    ++times_;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    spdlog::warn("{} ({} times since this was said last)", words, times_);
    times_ = 0;
    next_ = now + std::chrono::seconds(1);
  }

 private:
  std::int64_t times_ = 0;
  std::chrono::steady_clock::time_point next_;
};

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Create(std::vector<ListeningSocket> sockets,
                                                           ConnectionLimits limits) {
  shm::UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) return absl::ErrnoToStatus(errno, "cannot wait for connections");
  return std::unique_ptr<Acceptor>(new Acceptor(std::move(sockets), std::move(stop), std::move(limits)));
}

Acceptor::Acceptor(std::vector<ListeningSocket> sockets, shm::UniqueFd stop, ConnectionLimits limits)
    : sockets_(std::move(sockets)),
      stop_(std::move(stop)),
      limits_(std::move(limits)),
      too_many_(std::make_unique<Complaint>()),
      too_many_of_peer_(std::make_unique<Complaint>()),
      cannot_accept_(std::make_unique<Complaint>()) {}

Acceptor::~Acceptor() { Stop(); }

absl::Status Acceptor::Start(Handler handler) {
  handler_ = std::move(handler);
  watched_ = {{stop_.get(), POLLIN, 0}};
  for (const ListeningSocket& socket : sockets_) watched_.push_back({socket.fd.get(), POLLIN, 0});
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot start the thread that takes connections: ", error.what()));
  }
  return absl::OkStatus();
}

void Acceptor::Stop() {
  eventfd_write(stop_.get(), 1);
  if (thread_.joinable()) thread_.join();
  for (ListeningSocket& socket : sockets_) socket.Close();
}

void Acceptor::Run() {
  bool resting = false;
  while (true) {
    const int count = poll(watched_.data(), resting ? 1 : watched_.size(), resting ? kRestMilliseconds : -1);
    if (count > 0 && watched_[0].revents != 0) return;
    const bool rested = resting;
    resting = count < 0 && errno != EINTR;
    if (count <= 0 || rested) continue;
    for (std::size_t i = 1; i < watched_.size(); ++i) {
      if (watched_[i].revents == 0) continue;
      bool all = false;
      // If there is no memory for a connection, it is closed, and the others wait.
      const absl::Status taken = memory::CatchNoMemoryIn([&] { all = AcceptAt(watched_[i].fd); });
      if (!taken.ok() || !all) resting = true;
    }
  }
}

bool Acceptor::AcceptAt(int socket) {
  for (int i = 0; i < kTurn; ++i) {
    shm::UniqueFd connection(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection.valid()) {
      Admit(std::move(connection));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return true;
    } else if (!IsOfOneConnection(errno)) {
      cannot_accept_->Make(absl::StrCat("new connections wait: ", std::strerror(errno)));
      return false;
    }
  }
  return true;
}

bool Acceptor::Full() const { return static_cast<std::int64_t>(connections_.size()) >= limits_.most; }

bool Acceptor::HasItsShare(const std::string& peer) const {
  for (const AddressRange& proxy : limits_.proxies) {
    if (proxy.Contains(peer)) return false;
  }
  const std::int64_t free = limits_.most - static_cast<std::int64_t>(connections_.size());
  return static_cast<std::int64_t>(connections_.CountOf(peer)) >=
         (limits_.most_of_peer > 0 ? limits_.most_of_peer : std::max<std::int64_t>(free, 1));
}

void Acceptor::Admit(shm::UniqueFd connection) {
  const std::optional<std::string> peer = PeerOf(connection.get());
  if (!peer.has_value()) return;
  if (Full() || HasItsShare(*peer)) connections_.Sweep();
  if (Full()) {
    too_many_->Make(absl::StrCat("a new connection is closed: --max_connections ", limits_.most, " are open"));
    return;
  }
  if (HasItsShare(*peer)) {
    too_many_of_peer_->Make(
        absl::StrCat("a new connection from ", *peer, " is closed: ", connections_.CountOf(*peer), " of its are open, ",
                     limits_.most_of_peer > 0 ? "as many as it may have (--max_peer_connections)"
                                              : "no fewer than stay free (--max_peer_connections, --max_connections)"));
    return;
  }
  connections_.Add(connection.get(), *peer);
  handler_(std::move(connection));
}

}  // namespace attnd::server
