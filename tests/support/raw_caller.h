// A caller that speaks to the socket PATH.shm by hand.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::test {

// What waits does so for Patience() at most; then it fails the test. Sends up to kMaxDescriptors with a datagram. Not
// thread-safe, but for sending on one thread and receiving on another.
class RawCaller {
 public:
  static constexpr std::size_t kMaxDescriptors = 253;  // Linux takes no more

  explicit RawCaller(const std::string& path) : fd_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    const timeval patience = absl::ToTimeval(Patience());
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    connected_ = connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }

  bool connected() const { return connected_; }
  int fd() const { return fd_.get(); }

  // False if the server has closed the connection, or (without `wait`) if there is no room.
  bool Send(const void* bytes, std::size_t size, const std::vector<int>& fds = {}, bool wait = true) const {
    iovec data{const_cast<void*>(bytes), size};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxDescriptors)> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
      cmsghdr* const part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      std::memcpy(CMSG_DATA(part), fds.data(), sizeof(int) * fds.size());
    }
    const ssize_t sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    if (wait && sent < 0 && errno == EAGAIN) ADD_FAILURE() << "the server takes no datagram for " << Patience();
    return sent == static_cast<ssize_t>(size);
  }
  bool Send(const std::string& bytes, const std::vector<int>& fds = {}, bool wait = true) const {
    return Send(bytes.data(), bytes.size(), fds, wait);
  }

  // The next datagram; nullopt once the server has closed the connection.
  std::optional<std::string> ReceiveBytes() const {
    if (!Is(POLLIN, absl::ToChronoMilliseconds(Patience()))) {
      ADD_FAILURE() << "nothing comes from the server for " << Patience();
      return std::nullopt;
    }
    std::string bytes(1 << 17, '\0');
    const ssize_t size = recv(fd_.get(), bytes.data(), bytes.size(), 0);
    if (size <= 0) return std::nullopt;
    bytes.resize(static_cast<std::size_t>(size));
    return bytes;
  }

  // The next datagram as a fixed reply; nullopt if it is none.
  std::optional<shm::Reply> Receive() const {
    const std::optional<std::string> bytes = ReceiveBytes();
    shm::Reply reply;
    if (!bytes.has_value() || bytes->size() != sizeof(reply)) return std::nullopt;
    std::memcpy(&reply, bytes->data(), sizeof(reply));
    return reply;
  }

  // Whether a datagram, or the end, is there.
  bool HearsNow() const { return Is(POLLIN, std::chrono::milliseconds(0)); }
  // Whether there is room for a datagram within `time`.
  bool HasRoom(std::chrono::milliseconds time) const { return Is(POLLOUT, time); }

 private:
  bool Is(short event, std::chrono::milliseconds time) const {
    const absl::Time deadline = absl::Now() + absl::FromChrono(time);
    int ready = 0;
    do {  // signals interrupt it
      pollfd wanted{fd_.get(), event, 0};
      const auto left = absl::ToInt64Milliseconds(std::max(deadline - absl::Now(), absl::ZeroDuration()));
      ready = poll(&wanted, 1, static_cast<int>(left));
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
  }

  shm::UniqueFd fd_;
  bool connected_;
};

}  // namespace attnd::test
