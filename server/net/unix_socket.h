// Unix sockets in the file system: their permissions, and the removal of sockets that a dead server left.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/shm/unique_fd.h"
#include "server/net/file_lock.h"

namespace attnd::server {

// The address of a socket at `path`. Errors: INVALID_ARGUMENT if the path is empty or too long for a socket address.
absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path);

// Whether a process listens at `address`, with a stream or seqpacket socket. kUnknown if this process may not connect.
// Never blocks.
enum class Listens : std::uint8_t { kNobody, kSomebody, kUnknown };
Listens WhoListensAt(const sockaddr_un& address);

// Permission bits from octal digits ("0660"). Errors: INVALID_ARGUMENT for anything else or bits beyond 0777.
absl::StatusOr<mode_t> ParseSocketMode(std::string_view text);

// While it lives, sockets that this process creates have the permissions `mode`. Unlike chmod after bind, this leaves
// no moment with other permissions. It sets the umask of the whole process, so keep the scope short; other files
// created meanwhile get no more permissions than `mode`.
class SocketModeScope {
 public:
  explicit SocketModeScope(mode_t mode);
  ~SocketModeScope();
  SocketModeScope(const SocketModeScope&) = delete;
  SocketModeScope& operator=(const SocketModeScope&) = delete;

 private:
  const mode_t before_;
};

// Ownership of a Unix socket's path. Holds the lock PATH.lock until it is destroyed, so that two processes that start
// at the same time cannot both have the path. Not thread-safe.
class UnixName {
 public:
  // Locks `path`, and removes a socket there at which nobody listens. Errors: ALREADY_EXISTS if a process listens there
  // or holds the lock, or if the file is not a socket; PERMISSION_DENIED with the owner if the lock or the socket is
  // another user's and this process may not use it; INVALID_ARGUMENT if the path is empty or too long for a socket
  // address; or the system's error.
  static absl::StatusOr<std::unique_ptr<UnixName>> Take(const std::string& path);

  ~UnixName() { RemoveSocket(); }
  UnixName(const UnixName&) = delete;
  UnixName& operator=(const UnixName&) = delete;

  // Binds the socket, which creates its file with the permissions `mode`.
  absl::Status Bind(int fd, mode_t mode);

  // Removes the file that Bind created, but not another file in its place. Keeps the lock.
  void RemoveSocket();

 private:
  UnixName(std::string path, const sockaddr_un& address, FileLock lock)
      : path_(std::move(path)), address_(address), lock_(std::move(lock)) {}

  const std::string path_;
  const sockaddr_un address_;
  const FileLock lock_;
  std::optional<std::pair<dev_t, ino_t>> file_;  // the file that Bind created
};

// A listening socket, non-blocking and close-on-exec.
struct ListeningSocket {
  std::unique_ptr<UnixName> name;  // of a Unix socket; null for TCP
  shm::UniqueFd fd;

  // Stops listening. Removes a Unix socket's file, but keeps its lock.
  void Close() {
    fd = shm::UniqueFd();
    if (name != nullptr) name->RemoveSocket();
  }
};

// Makes a socket of `type`, SOCK_STREAM or SOCK_SEQPACKET, that listens at `path` with the permissions `mode`. Errors:
// as UnixName::Take, or the system's error.
absl::StatusOr<ListeningSocket> ListenUnix(const std::string& path, int type, mode_t mode);

}  // namespace attnd::server
