// This binary's own socket(), setsockopt() and bind() stand before the system's, so that a machine without IPv6, or
// with net.ipv6.bindv6only, is at hand.
#include "server/net/tcp_socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attnd/shm/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

struct Machine {
  bool has_ipv6 = true;
  bool has_ipv6_addresses = true;
  bool may_take_both = true;
  int ipv4_in_use = 0;  // how many times a port is free for IPv6 and in use for IPv4
  int binds = 0;        // of IPv4
} machine;

}  // namespace

extern "C" int socket(int family, int type, int protocol) noexcept {
  if (family == AF_INET6 && !machine.has_ipv6) return errno = EAFNOSUPPORT, -1;
  return static_cast<int>(syscall(SYS_socket, family, type, protocol));
}

extern "C" int bind(int fd, const sockaddr* address, socklen_t size) noexcept {
  if (address->sa_family == AF_INET6 && !machine.has_ipv6_addresses) return errno = EADDRNOTAVAIL, -1;
  if (address->sa_family == AF_INET && (++machine.binds, machine.ipv4_in_use-- > 0)) return errno = EADDRINUSE, -1;
  return static_cast<int>(syscall(SYS_bind, fd, address, size));
}

extern "C" int setsockopt(int fd, int level, int option, const void* value, socklen_t size) noexcept {
  if (level == IPPROTO_IPV6 && option == IPV6_V6ONLY && *static_cast<const int*>(value) == 0 &&
      !machine.may_take_both) {
    return errno = EPERM, -1;
  }
  return static_cast<int>(syscall(SYS_setsockopt, fd, level, option, value, size));
}

namespace attnd::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class ListenTcpTest : public testing::Test {
 protected:
  ListenTcpTest() {
    const shm::UniqueFd probe(socket(AF_INET6, SOCK_STREAM, 0));
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    six_ = probe.valid() && bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~ListenTcpTest() override { machine = Machine(); }

  static absl::StatusOr<TcpSockets> Listen(const std::string& host, int port = 0) {
    return ListenTcp(host, absl::StrCat(port), absl::ZeroDuration());
  }
  static bool AnswersIPv4(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<in_port_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return Answers(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  static bool AnswersIPv6(int port) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(static_cast<in_port_t>(port));
    address.sin6_addr = in6addr_loopback;
    return Answers(AF_INET6, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }

  bool six_ = false;  // whether this machine has IPv6

 private:
  static bool Answers(int family, const sockaddr* address, socklen_t size) {
    const shm::UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return connect(fd.get(), address, size) == 0;
  }
};

TEST_F(ListenTcpTest, OneAddress) {
  const auto tcp = Listen("127.0.0.1");
  ASSERT_TRUE(tcp.ok()) << tcp.status();
  EXPECT_THAT(tcp->fds, SizeIs(1));
  EXPECT_TRUE(AnswersIPv4(tcp->port));
  EXPECT_FALSE(six_ && AnswersIPv6(tcp->port));
}

TEST_F(ListenTcpTest, EitherWildcardMeansBothFamilies) {
  if (!six_) GTEST_SKIP() << "no IPv6 here";
  for (const char* host : {"0.0.0.0", "::", "::ffff:0.0.0.0"}) {
    for (const bool may_take_both : {true, false}) {
      machine.may_take_both = may_take_both;
      const auto tcp = Listen(host);
      ASSERT_TRUE(tcp.ok()) << host << tcp.status();
      EXPECT_THAT(tcp->fds, SizeIs(may_take_both ? 1 : 2));
      EXPECT_THAT(tcp->missing, IsEmpty());
      EXPECT_TRUE(AnswersIPv4(tcp->port)) << host;
      EXPECT_TRUE(AnswersIPv6(tcp->port)) << host;
    }
  }
}

TEST_F(ListenTcpTest, AWildcardWithoutIPv6MeansAllOfIPv4) {
  for (const bool has_family : {false, true}) {
    machine.has_ipv6 = has_family;
    machine.has_ipv6_addresses = false;
    for (const char* host : {"::", "0.0.0.0"}) {
      const auto tcp = Listen(host);
      ASSERT_TRUE(tcp.ok()) << host << tcp.status();
      EXPECT_TRUE(AnswersIPv4(tcp->port)) << host;
      EXPECT_THAT(tcp->missing, ElementsAre(HasSubstr("IPv6: "))) << host;
    }
    EXPECT_THAT(std::string(Listen("::1").status().message()),
                HasSubstr(has_family ? "[::1]: Cannot assign" : "[::1]: Address family not supported"));
  }
}

TEST_F(ListenTcpTest, EveryAddressOfAName) {
  const auto tcp = Listen("localhost");
  ASSERT_TRUE(tcp.ok()) << tcp.status();
  EXPECT_TRUE(AnswersIPv4(tcp->port));
  EXPECT_EQ(tcp->fds.size() > 1, AnswersIPv6(tcp->port));

  machine.has_ipv6_addresses = false;
  const auto without = Listen("localhost");
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_TRUE(AnswersIPv4(without->port));
}

// Half of the name's clients would reach another server.
TEST_F(ListenTcpTest, ANameWithOneAddressTakenIsRefused) {
  const auto taken = Listen("127.0.0.1");
  ASSERT_TRUE(taken.ok());
  for (const char* host : {"localhost", "127.0.0.1", "0.0.0.0", "::"}) {
    const absl::Status status = Listen(host, taken->port).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << host;
    EXPECT_THAT(std::string(status.message()), HasSubstr(": Address already in use")) << host;
  }
}

// A port that is free at one of the addresses and not at another is no port for both: another one is tried.
TEST_F(ListenTcpTest, AnyPortMeansOneThatIsFreeEverywhere) {
  if (!six_) GTEST_SKIP() << "no IPv6 here";
  constexpr int kAttempts = 16;
  for (const auto& [in_use, port, attempts, ok] : {std::tuple{0, 0, 1, true},
                                                   {1, 0, 2, true},
                                                   {kAttempts - 1, 0, kAttempts, true},
                                                   {kAttempts, 0, kAttempts, false},
                                                   {1, 54321, 1, false}}) {
    SCOPED_TRACE(in_use);
    machine = Machine();
    machine.may_take_both = false;
    machine.ipv4_in_use = in_use;
    const auto tcp = Listen("0.0.0.0", port);
    if (port != 0 && !tcp.ok() && machine.binds == 0) continue;  // somebody has that port
    EXPECT_EQ(tcp.ok(), ok) << tcp.status();
    EXPECT_EQ(machine.binds, attempts);
    if (tcp.ok()) {
      EXPECT_TRUE(AnswersIPv4(tcp->port) && AnswersIPv6(tcp->port));
    } else {
      EXPECT_EQ(tcp.status().code(), absl::StatusCode::kUnavailable);
    }
  }
}

// Those that are accepted inherit TCP's options from it.
TEST_F(ListenTcpTest, EverySocketHasItsOptions) {
  for (const char* host : {"127.0.0.1", "0.0.0.0", "localhost"}) {
    for (const bool may_take_both : {true, false}) {
      machine.may_take_both = may_take_both;
      for (const auto& [timeout, milliseconds] :
           {std::pair{absl::ZeroDuration(), 0}, {absl::Milliseconds(1500), 1500}}) {
        const absl::StatusOr<TcpSockets> tcp = ListenTcp(host, "0", timeout);
        ASSERT_TRUE(tcp.ok()) << tcp.status();
        for (const shm::UniqueFd& fd : tcp->fds) {
          EXPECT_NE(fcntl(fd.get(), F_GETFL) & O_NONBLOCK, 0);
          EXPECT_NE(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
          for (const auto& [level, option, expected] : {std::tuple{SOL_SOCKET, SO_REUSEADDR, 1},
                                                        {SOL_SOCKET, SO_ACCEPTCONN, 1},
                                                        {IPPROTO_TCP, TCP_NODELAY, 1},
                                                        {IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds}}) {
            int value = -1;
            socklen_t size = sizeof(value);
            ASSERT_EQ(getsockopt(fd.get(), level, option, &value, &size), 0);
            EXPECT_EQ(value, expected) << host << " " << option;
          }
        }
      }
    }
  }
}

TEST_F(ListenTcpTest, WhatIsNotHere) {
  EXPECT_THAT(std::string(Listen("192.0.2.1").status().message()), HasSubstr("192.0.2.1: Cannot assign"));
  EXPECT_EQ(Listen("no such host").status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attnd::server
