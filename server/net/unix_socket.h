// Sockets in the file system: who may open them, and what a server that died left behind.
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

// The address of a socket at `path`. Errors: INVALID_ARGUMENT for an empty path or one too long for a socket's address.
absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path);

// Whether a process listens there, with a stream or a seqpacket socket. kUnknown if this process may not connect. Never
// blocks.
enum class Listens : std::uint8_t { kNobody, kSomebody, kUnknown };
Listens WhoListensAt(const sockaddr_un& address);

// Permission bits from octal digits ("0660"). Errors: INVALID_ARGUMENT for anything else or bits beyond 0777.
absl::StatusOr<mode_t> ParseSocketMode(std::string_view text);

// While it lives, this process makes sockets with the permissions `mode`: there is no moment at which the file has
// others, as there would be with chmod after bind. The mask is the whole process's, so keep the scope short; other
// files made meanwhile get no more permissions than `mode`.
class SocketModeScope {
 public:
  explicit SocketModeScope(mode_t mode);
  ~SocketModeScope();
  SocketModeScope(const SocketModeScope&) = delete;
  SocketModeScope& operator=(const SocketModeScope&) = delete;

 private:
  const mode_t before_;
};

// The name of a Unix socket while this process has it, also against processes that start at the same time: holds the
// lock PATH.lock until it goes. Not thread-safe.
class UnixName {
 public:
  // Makes way for a socket at `path`: removes one that nobody listens at. Errors: ALREADY_EXISTS if somebody does, or
  // if what stands there is no socket; PERMISSION_DENIED with the owner if it is another user's; INVALID_ARGUMENT for a
  // path too long for a socket's address; or what the system says.
  static absl::StatusOr<std::unique_ptr<UnixName>> Take(const std::string& path);

  ~UnixName() { RemoveSocket(); }
  UnixName(const UnixName&) = delete;
  UnixName& operator=(const UnixName&) = delete;

  // Binds the socket and makes its file, with the permissions `mode`.
  absl::Status Bind(int fd, mode_t mode);

  // Removes the file that Bind made; another one in its place stays. The lock stays.
  void RemoveSocket();

 private:
  UnixName(std::string path, const sockaddr_un& address, FileLock lock)
      : path_(std::move(path)), address_(address), lock_(std::move(lock)) {}

  const std::string path_;
  const sockaddr_un address_;
  const FileLock lock_;
  std::optional<std::pair<dev_t, ino_t>> file_;  // what Bind made
};

// A socket that listens, does not block and is closed on exec.
struct ListeningSocket {
  std::unique_ptr<UnixName> name;  // of a Unix socket
  shm::UniqueFd fd;

  // Listens no more. A Unix socket's file goes; its lock stays.
  void Close() {
    fd = shm::UniqueFd();
    if (name != nullptr) name->RemoveSocket();
  }
};

// A socket of `type`, SOCK_STREAM or SOCK_SEQPACKET, that listens at `path` with the permissions `mode`. Errors: as
// UnixName::Take, or what the system says.
absl::StatusOr<ListeningSocket> ListenUnix(const std::string& path, int type, mode_t mode);

}  // namespace attnd::server
