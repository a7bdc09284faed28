// Both ends of a connection to the local socket, for tests that play the server.
#pragma once

#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "bounded.h"
#include "client/src/local_socket.h"
#include "gtest/gtest.h"

namespace attnd::client {

// The largest datagram that the server offers.
inline constexpr std::size_t kOffer = 4096;

// Both ends of a connection; the client's as LocalSocket::Make leaves it.
class Ends {
 public:
  explicit Ends(const Keepalive& keepalive = {std::chrono::hours(1), std::chrono::hours(1)}) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    server = shm::UniqueFd(fds[1]);
    const timeval silence = absl::ToTimeval(absl::FromChrono(keepalive.time));
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
    // So that a test that waits for a client that sends nothing fails.
    const timeval patience{20, 0};
    setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    socket = std::make_unique<LocalSocket>(shm::UniqueFd(fds[0]), LocalOffer{kOffer, 16, true}, keepalive);
  }

  void Send(const std::string& datagram) const {
    EXPECT_EQ(send(server.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(datagram.size()));
  }
  // A reply to a fixed message; `mark` tells it from others.
  void SendFixed(unsigned char mark, std::int32_t code = 0) const {
    shm::Reply reply{};
    reply.magic = shm::kMagic;
    reply.version = shm::kVersion;
    reply.code = code;
    reply.handle[0] = mark;
    Send(std::string(reinterpret_cast<const char*>(&reply), sizeof(reply)));
  }
  std::string Next() const {
    std::string bytes(std::size_t{1} << 17, '\0');
    const ssize_t size = recv(server.get(), bytes.data(), bytes.size(), 0);
    EXPECT_GT(size, 0) << std::strerror(errno);
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    return bytes;
  }
  shm::Request NextFixed() const {
    const std::string bytes = Next();
    shm::Request request{};
    EXPECT_EQ(bytes.size(), sizeof(request));
    if (bytes.size() == sizeof(request)) std::memcpy(&request, bytes.data(), sizeof(request));
    return request;
  }
  void HangUp() const { shutdown(server.get(), SHUT_RDWR); }
  // Whether the client has ended the connection.
  bool Ended() const {
    char byte;
    return recv(server.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
  }

  // What does not end is hung up.
  template <typename Call>
  auto Bounded(const Call& call) const {
    return client::Bounded(call, [this] { HangUp(); });
  }

  shm::UniqueFd server;
  std::unique_ptr<LocalSocket> socket;
};

}  // namespace attnd::client
