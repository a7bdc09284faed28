// Sockets in the file system: who may open them, and what a server that died left behind.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::server {

// The address of a socket at `path`. Errors: INVALID_ARGUMENT for an empty path or one too long for a socket's address.
absl::StatusOr<sockaddr_un> SocketAddress(const std::string& path);

// Whether a process listens there, with a stream or a seqpacket socket. Never blocks.
bool SomebodyAnswersAt(const sockaddr_un& address);

// Permission bits from octal digits ("0660"). Errors: INVALID_ARGUMENT for anything else or bits beyond 0777.
absl::StatusOr<mode_t> ParseSocketMode(std::string_view text);

// Makes way for a socket at `path`: removes one that nobody answers at. Errors: ALREADY_EXISTS if somebody does (gRPC
// by itself would take the name from a running server), or if what stands there is no socket; INVALID_ARGUMENT for a
// path too long for a socket's address.
absl::Status RemoveStaleSocket(const std::string& path);

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

// A non-blocking SOCK_SEQPACKET socket that listens at `path` with the permissions `mode`. Errors: as
// RemoveStaleSocket, or what the system says.
absl::StatusOr<shm::UniqueFd> ListenSeqpacket(const std::string& path, mode_t mode);

}  // namespace attnd::server
