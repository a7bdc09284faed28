#include "server/net/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/shm/unique_fd.h"
#include "gtest/gtest.h"
#include "server/net/listen.h"
#include "temp_folder.h"

namespace attnd::server {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

// What an acceptor hands on.
class Taken {
 public:
  Acceptor::Handler handler() {
    return [this](shm::UniqueFd connection) {
      absl::MutexLock lock(&mutex_);
      connections_.push_back(std::move(connection));
    };
  }
  // Waits until there are at least `count`; how many there are.
  std::size_t Await(std::size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return connections_.size() >= count; };
    mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience);
    return connections_.size();
  }
  shm::UniqueFd Take() {
    absl::MutexLock lock(&mutex_);
    shm::UniqueFd last = std::move(connections_.back());
    connections_.pop_back();
    return last;
  }

 private:
  absl::Mutex mutex_;
  std::vector<shm::UniqueFd> connections_;
};

// Both kinds of sockets.
class AcceptorTest : public testing::TestWithParam<bool> {
 protected:
  AcceptorTest() {
    absl::StatusOr<Listening> listening = ListenAt({unix_ ? "unix:" + path_ : "127.0.0.1:0"}, {0600, absl::Seconds(7)});
    EXPECT_TRUE(listening.ok()) << listening.status();
    size_ = sizeof(address_);
    getsockname(listening->sockets[0].fd.get(), reinterpret_cast<sockaddr*>(&address_), &size_);
    sockets_ = std::move(listening->sockets);
  }

  // Without a limit of their own for peers: all of these tests' connections are one peer's.
  void Start(std::int64_t max_connections) { Start({max_connections, max_connections, {}}); }
  void Start(ConnectionLimits limits) {
    acceptor_ = *Acceptor::Create(std::move(sockets_), std::move(limits));
    ASSERT_TRUE(acceptor_->Start(taken_.handler()).ok());
  }

  shm::UniqueFd Socket() const { return shm::UniqueFd(socket(address_.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
  // From another address of the loopback network.
  shm::UniqueFd ConnectedFrom(const char* host) const {
    shm::UniqueFd fd = Socket();
    sockaddr_in from{};
    from.sin_family = AF_INET;
    EXPECT_EQ(inet_pton(AF_INET, host, &from.sin_addr), 1);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), sizeof(from)), 0);
    EXPECT_EQ(Connect(fd), 0);
    return fd;
  }
  int Connect(const shm::UniqueFd& fd) const {
    return connect(fd.get(), reinterpret_cast<const sockaddr*>(&address_), size_) == 0 ? 0 : errno;
  }
  shm::UniqueFd Connected() const {
    shm::UniqueFd fd = Socket();
    EXPECT_EQ(Connect(fd), 0);
    return fd;
  }
  // Waits until the other end has closed the connection.
  static bool IsClosed(const shm::UniqueFd& fd) {
    pollfd watched{fd.get(), POLLIN, 0};
    char byte;
    return poll(&watched, 1, static_cast<int>(absl::ToInt64Milliseconds(kPatience))) == 1 &&
           recv(fd.get(), &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN;
  }

  const bool unix_ = GetParam();
  const test::TempFolder folder_;
  const std::string path_ = folder_.path() + "/s";
  sockaddr_storage address_{};
  socklen_t size_ = 0;
  std::vector<ListeningSocket> sockets_;
  Taken taken_;
  std::unique_ptr<Acceptor> acceptor_;
};

INSTANTIATE_TEST_SUITE_P(TcpAndUnix, AcceptorTest, testing::Bool(),
                         [](const auto& name) { return name.param ? "Unix" : "Tcp"; });

TEST_P(AcceptorTest, HandsOnWhatGrpcExpectsOfAConnection) {
  Start(10);
  const shm::UniqueFd client = Connected();
  ASSERT_EQ(taken_.Await(1), 1U);
  const shm::UniqueFd connection = taken_.Take();
  EXPECT_NE(fcntl(connection.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(connection.get(), F_GETFD) & FD_CLOEXEC, 0);
  if (!unix_) {
    for (const auto& [option, expected] : {std::pair{TCP_NODELAY, 1}, std::pair{TCP_USER_TIMEOUT, 7000}}) {
      int value = 0;
      socklen_t size = sizeof(value);
      ASSERT_EQ(getsockopt(connection.get(), IPPROTO_TCP, option, &value, &size), 0);
      EXPECT_EQ(value, expected) << option;
    }
  }
}

TEST_P(AcceptorTest, TakesConnectionsAgainOnceThereAreDescriptors) {
  Start(1000);
  std::vector<shm::UniqueFd> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(Socket());
  const int next = Socket().get();  // the lowest free number
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit lower = limit;
  lower.rlim_cur = static_cast<rlim_t>(next) + 3;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  for (const shm::UniqueFd& client : clients) EXPECT_EQ(Connect(client), 0);
  EXPECT_EQ(taken_.Await(3), 3U);
  // Nothing shows that the acceptor has failed at the fourth; its rest is over and begins anew meanwhile.
  const shm::UniqueFd stays = taken_.Take();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(taken_.Await(9), 9U);
  clients.push_back(Connected());
  EXPECT_EQ(taken_.Await(10), 10U);
}

TEST_P(AcceptorTest, ClosesWhatIsBeyondTheLimitUntilAnotherHasGone) {
  Start(2);
  const shm::UniqueFd first = Connected(), second = Connected();
  ASSERT_EQ(taken_.Await(2), 2U);
  EXPECT_TRUE(IsClosed(Connected()));
  EXPECT_TRUE(IsClosed(Connected()));
  char byte = 'x';
  EXPECT_EQ(send(first.get(), &byte, 1, MSG_NOSIGNAL), 1);
  EXPECT_EQ(recv(first.get(), &byte, 1, MSG_DONTWAIT), -1) << "the earlier ones live on";
  EXPECT_EQ(taken_.Await(2), 2U);
  { const shm::UniqueFd gone = taken_.Take(); }
  // Room shows when the acceptor looks; it looks at a new connection, and not at every one.
  std::vector<shm::UniqueFd> clients;
  while (taken_.Await(0) < 2 && clients.size() < 100000) {
    clients.push_back(Connected());
    if (clients.size() > 8) clients.erase(clients.begin());
  }
  EXPECT_EQ(taken_.Await(2), 2U);
}

TEST_P(AcceptorTest, OnePeerLeavesAsManyAsItHas) {
  Start({6, 0, {}});
  std::vector<shm::UniqueFd> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(Connected());
  ASSERT_EQ(taken_.Await(3), 3U);
  EXPECT_TRUE(IsClosed(Connected())) << "three are free, and it has three";
  if (unix_) return;  // all are one peer
  clients.push_back(ConnectedFrom("127.0.0.2"));
  ASSERT_EQ(taken_.Await(4), 4U);
  EXPECT_TRUE(IsClosed(Connected()));
  clients.push_back(ConnectedFrom("127.0.0.3"));
  EXPECT_EQ(taken_.Await(5), 5U);
}

TEST_P(AcceptorTest, OrAsManyAsItIsToldTo) {
  Start({6, 1, {}});
  const shm::UniqueFd first = Connected();
  ASSERT_EQ(taken_.Await(1), 1U);
  EXPECT_TRUE(IsClosed(Connected()));
  { const shm::UniqueFd gone = taken_.Take(); }
  std::vector<shm::UniqueFd> clients;
  while (taken_.Await(0) < 1 && clients.size() < 100000) {
    clients.push_back(Connected());
    if (clients.size() > 8) clients.erase(clients.begin());
  }
  EXPECT_EQ(taken_.Await(1), 1U) << "one that has gone counts no more";
}

TEST_P(AcceptorTest, ATrustedProxyMayHaveAll) {
  Start({4, 1, {*AddressRange::Parse("127.0.0.0/24")}});
  std::vector<shm::UniqueFd> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(Connected());
  EXPECT_EQ(taken_.Await(unix_ ? 1 : 4), unix_ ? 1U : 4U);
  EXPECT_TRUE(!unix_ || IsClosed(clients.back()));
}

TEST_P(AcceptorTest, StopClosesWhatComesLater) {
  Start(10);
  const shm::UniqueFd before = Connected();
  ASSERT_EQ(taken_.Await(1), 1U);
  acceptor_->Stop();
  acceptor_->Stop();
  EXPECT_NE(Connect(Socket()), 0);
  EXPECT_EQ(std::filesystem::exists(path_), false);
  char byte;
  EXPECT_EQ(recv(before.get(), &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN) << "what was handed on stays";
}

TEST_P(AcceptorTest, StopClosesWhatNobodyHasTaken) {
  acceptor_ = *Acceptor::Create(std::move(sockets_), {10, 10, {}});
  const shm::UniqueFd waiting = Connected();
  acceptor_->Stop();
  EXPECT_TRUE(IsClosed(waiting));
}

// At a socket of both families, a peer is its own address all the same, and its limit is its own.
TEST(AcceptorPeersTest, PeersOfBothFamiliesAtOneSocket) {
  absl::StatusOr<Listening> listening = ListenAt({"[::]:0"}, {});
  if (!listening.ok()) GTEST_SKIP() << "no IPv6 here: " << listening.status();
  const std::string& address = listening->addresses[0];
  const auto port = static_cast<in_port_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  Taken taken;
  const auto acceptor = *Acceptor::Create(std::move(listening->sockets), {10, 1, {*AddressRange::Parse("127.0.0.9")}});
  ASSERT_TRUE(acceptor->Start(taken.handler()).ok());
  std::vector<shm::UniqueFd> clients;
  const auto connect_from = [&](const char* host) {
    const int family = std::string(host) == "::1" ? AF_INET6 : AF_INET;
    sockaddr_storage from{}, to{};
    const socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    from.ss_family = to.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(&to)->sin6_addr = in6addr_loopback;
      reinterpret_cast<sockaddr_in6*>(&from)->sin6_addr = in6addr_loopback;
      reinterpret_cast<sockaddr_in6*>(&to)->sin6_port = htons(port);
    } else {
      reinterpret_cast<sockaddr_in*>(&to)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      EXPECT_EQ(inet_pton(AF_INET, host, &reinterpret_cast<sockaddr_in*>(&from)->sin_addr), 1);
      reinterpret_cast<sockaddr_in*>(&to)->sin_port = htons(port);
    }
    clients.emplace_back(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int fd = clients.back().get();
    EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&from), size), 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), size), 0);
  };
  std::size_t expected = 0;
  for (const char* host : {"127.0.0.1", "127.0.0.2", "::1", "127.0.0.9", "127.0.0.9"}) {
    connect_from(host);
    EXPECT_EQ(taken.Await(++expected), expected) << host;
  }
  for (const char* host : {"127.0.0.1", "127.0.0.2", "::1"}) {
    connect_from(host);
    pollfd watched{clients.back().get(), POLLIN, 0};
    EXPECT_EQ(poll(&watched, 1, 20'000), 1) << host << " has its one already";
  }
  EXPECT_EQ(taken.Await(expected), expected);
}

}  // namespace
}  // namespace attnd::server
