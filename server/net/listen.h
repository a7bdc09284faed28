// Listens at the addresses of --listen.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/net/unix_socket.h"

namespace attnd::server {

struct ListenOptions {
  mode_t unix_mode = 0660;
  absl::Duration tcp_user_timeout;  // see ListenTcp
};

struct Listening {
  std::vector<ListeningSocket> sockets;
  std::vector<std::string> addresses;  // as given, with the ports that were bound
};

// Listens at all of the addresses. IP addresses of a name that this machine does not have are left out and logged.
// Errors: INVALID_ARGUMENT for an address of no known form; UNAVAILABLE with the address and the system's reason (in
// use, no permission, no such host, ...).
absl::StatusOr<Listening> ListenAt(const std::vector<std::string>& addresses, const ListenOptions& options);

}  // namespace attnd::server
