#include "server/net/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace attnd::server {
namespace {

constexpr mode_t kPermissions = 0777;

absl::Status SystemError(std::string_view what, const std::string& path) {
  const int error = errno;
  return absl::ErrnoToStatus(error, absl::StrCat(std::string(what), " ", path));
}

}  // namespace

absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("expected a path of 1 to ", sizeof(address.sun_path) - 1,
                                                   " bytes, got ", path.size(), ": \"", path, "\""));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

bool SomebodyAnswersAt(const sockaddr_un& address) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    const shm::UniqueFd probe(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
      return true;  // EAGAIN: its queue is full
    }
  }
  return false;
}

absl::StatusOr<mode_t> ParseSocketMode(std::string_view text) {
  mode_t mode = 0;
  bool valid = !text.empty() && text.size() <= 4;
  for (const char digit : text) {
    valid = valid && digit >= '0' && digit <= '7';
    mode = mode * 8 + static_cast<mode_t>(digit - '0');
  }
  if (!valid || mode > kPermissions) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket mode: expected octal permissions such as 0660, got \"", std::string(text), "\""));
  }
  return mode;
}

absl::Status RemoveStaleSocket(const std::string& path) {
  const absl::StatusOr<sockaddr_un> address = SocketAddress(path);
  if (!address.ok()) return address.status();
  struct stat file;
  if (lstat(path.c_str(), &file) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError("cannot look at", path);
  }
  if (!S_ISSOCK(file.st_mode)) return absl::AlreadyExistsError(absl::StrCat(path, " exists and is not a socket"));
  if (SomebodyAnswersAt(*address))
    return absl::AlreadyExistsError(absl::StrCat("a server listens at ", path, " already"));
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return SystemError("cannot remove the stale socket", path);
  return absl::OkStatus();
}

SocketModeScope::SocketModeScope(mode_t mode) : before_(umask(kPermissions & ~mode)) {}

SocketModeScope::~SocketModeScope() { umask(before_); }

absl::StatusOr<shm::UniqueFd> ListenSeqpacket(const std::string& path, mode_t mode) {
  if (const absl::Status free = RemoveStaleSocket(path); !free.ok()) return free;
  const absl::StatusOr<sockaddr_un> address = SocketAddress(path);
  if (!address.ok()) return address.status();
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return SystemError("cannot make a socket for", path);
  const SocketModeScope scope(mode);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) {
    return SystemError("cannot bind", path);
  }
  if (listen(fd.get(), SOMAXCONN) != 0) return SystemError("cannot listen at", path);
  return fd;
}

}  // namespace attnd::server
