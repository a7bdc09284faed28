#include "server/net/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "absl/strings/str_cat.h"

namespace attnd::server {
namespace {

constexpr mode_t kPermissions = 0777;
constexpr char kLockSuffix[] = ".lock";

absl::Status SystemError(std::string_view what, const std::string& path) {
  const int error = errno;
  return absl::ErrnoToStatus(error, absl::StrCat(std::string(what), " ", path));
}

// `address` is the address of `path`. The lock of `path` must be held.
absl::Status RemoveStaleSocket(const std::string& path, const sockaddr_un& address) {
  struct stat file;
  if (lstat(path.c_str(), &file) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError("cannot look at", path);
  }
  if (!S_ISSOCK(file.st_mode)) return absl::AlreadyExistsError(absl::StrCat(path, " exists and is not a socket"));
  const Listens who = WhoListensAt(address);
  if (who == Listens::kSomebody) {
    return absl::AlreadyExistsError(absl::StrCat("another process listens at ", path));
  }
  if (who == Listens::kUnknown) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot tell whether a process listens at ", path, ", which belongs to ", OwnerOf(file)));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    const int error = errno;  // OwnerOf may change errno
    return absl::ErrnoToStatus(error, absl::StrCat("cannot remove the stale socket of ", OwnerOf(file), ", ", path));
  }
  return absl::OkStatus();
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

Listens WhoListensAt(const sockaddr_un& address) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    const shm::UniqueFd probe(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe.valid()) return Listens::kUnknown;
    if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
      return Listens::kSomebody;  // EAGAIN: its queue is full
    }
    if (errno == EACCES || errno == EPERM) return Listens::kUnknown;
  }
  return Listens::kNobody;
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

SocketModeScope::SocketModeScope(mode_t mode) : before_(umask(kPermissions & ~mode)) {}

SocketModeScope::~SocketModeScope() { umask(before_); }

absl::StatusOr<std::unique_ptr<UnixName>> UnixName::Take(const std::string& path) {
  const absl::StatusOr<sockaddr_un> address = SocketAddress(path);
  if (!address.ok()) return address.status();
  absl::StatusOr<FileLock> lock = FileLock::Take(absl::StrCat(path, kLockSuffix));
  if (!lock.ok()) return lock.status();
  if (const absl::Status free = RemoveStaleSocket(path, *address); !free.ok()) return free;
  return std::unique_ptr<UnixName>(new UnixName(path, *address, *std::move(lock)));
}

absl::Status UnixName::Bind(int fd, mode_t mode) {
  const SocketModeScope scope(mode);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)) != 0) {
    return SystemError("cannot bind", path_);
  }
  struct stat file;
  if (lstat(path_.c_str(), &file) == 0) file_ = {file.st_dev, file.st_ino};
  return absl::OkStatus();
}

void UnixName::RemoveSocket() {
  struct stat file;
  if (file_.has_value() && lstat(path_.c_str(), &file) == 0 && std::pair(file.st_dev, file.st_ino) == *file_) {
    unlink(path_.c_str());
  }
  file_.reset();
}

absl::StatusOr<ListeningSocket> ListenUnix(const std::string& path, int type, mode_t mode) {
  absl::StatusOr<std::unique_ptr<UnixName>> name = UnixName::Take(path);
  if (!name.ok()) return name.status();
  ListeningSocket socket{*std::move(name), shm::UniqueFd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))};
  if (!socket.fd.valid()) return SystemError("cannot make a socket for", path);
  if (absl::Status bound = socket.name->Bind(socket.fd.get(), mode); !bound.ok()) return bound;
  if (listen(socket.fd.get(), std::numeric_limits<int>::max()) != 0) return SystemError("cannot listen at", path);
  return socket;
}

}  // namespace attnd::server
