#include "client/src/shm_socket.h"

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace attnd::client {
namespace {

// Repeats a system call while signals interrupt it.
template <typename Call>
ssize_t Uninterrupted(const Call& call) {
  ssize_t result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

Transfer Outcome(ssize_t transferred, std::size_t expected) {
  if (transferred == static_cast<ssize_t>(expected)) return Transfer::kDone;
  return transferred < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Transfer::kNotYet : Transfer::kBroken;
}

}  // namespace

shm::UniqueFd ConnectSeqpacket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return {};
  std::copy(path.begin(), path.end(), address.sun_path);
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return {};
  // A Unix socket connects at once or fails.
  const auto connected =
      Uninterrupted([&] { return connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)); });
  if (connected != 0) return {};
  return fd;
}

shm::Request FixedRequest(shm::Operation operation) {
  shm::Request request{};
  request.magic = shm::kMagic;
  request.version = shm::kVersion;
  request.operation = operation;
  return request;
}

Transfer SendRequest(int socket, const shm::Request& request, int fd) {
  shm::Request copy = request;
  iovec data{&copy, sizeof(copy)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  }
  return Outcome(Uninterrupted([&] { return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT); }), sizeof(copy));
}

Transfer ReceiveReply(int socket, shm::Reply& reply) {
  const Transfer transfer =
      Outcome(Uninterrupted([&] { return recv(socket, &reply, sizeof(reply), MSG_DONTWAIT); }), sizeof(reply));
  return transfer == Transfer::kDone && reply.magic != shm::kMagic ? Transfer::kBroken : transfer;
}

Delivery SendDatagram(int socket, absl::Span<const iovec> pieces) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  if (Uninterrupted([&] { return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT); }) >= 0) {
    return Delivery::kDone;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) return Delivery::kNotYet;
  return errno == EMSGSIZE || errno == ENOBUFS || errno == ENOMEM ? Delivery::kTooLarge : Delivery::kBroken;
}

Delivery SendDatagram(int socket, absl::string_view bytes) {
  const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  return SendDatagram(socket, absl::MakeConstSpan(&piece, 1));
}

Transfer ReceiveDatagram(int socket, absl::Span<unsigned char> buffer, absl::Span<const unsigned char>& bytes) {
  // MSG_TRUNC returns the datagram's length even if the buffer is shorter.
  const ssize_t size =
      Uninterrupted([&] { return recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC); });
  if (size < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? Transfer::kNotYet : Transfer::kBroken;
  if (size == 0 || static_cast<std::size_t>(size) > buffer.size()) return Transfer::kBroken;
  bytes = buffer.first(static_cast<std::size_t>(size));
  return Transfer::kDone;
}

std::size_t LargestDatagram(int socket) {
  // As the kernel computes it (unix_dgram_sendmsg). getsockopt returns the size that the kernel uses.
  constexpr int kBeside = 32;
  int size = 0;
  socklen_t length = sizeof(size);
  getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &size, &length);
  return static_cast<std::size_t>(std::max(size - kBeside, 0));
}

Transfer AskForSign(int socket) {
  // A request to release the all-zero handle, which no region has, is answered (docs/shared-memory.md, "The messages").
  return SendRequest(socket, FixedRequest(shm::Operation::kRelease), -1);
}

bool IsFixedReply(absl::Span<const unsigned char> datagram) {
  std::uint64_t magic = 0;
  if (datagram.size() != sizeof(shm::Reply)) return false;
  std::memcpy(&magic, datagram.data(), sizeof(magic));
  return magic == shm::kMagic;
}

void EndConnection(int socket) { shutdown(socket, SHUT_RDWR); }

bool HasEnded(int socket) {
  char byte;
  const ssize_t peeked = Uninterrupted([&] { return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT); });
  return peeked == 0 || (peeked < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

}  // namespace attnd::client
