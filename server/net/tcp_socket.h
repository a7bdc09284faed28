// Sockets that listen at the TCP addresses of a host name.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::server {

struct TcpSockets {
  std::vector<shm::UniqueFd> fds;
  int port = 0;
  std::vector<std::string> missing;  // the name's addresses that this machine does not have, with the system's reason
};

// Listens at every address of `host`, at one port (0: any port that is free at all of them). 0.0.0.0 and :: both mean
// every address of both families; if the system has no IPv6, every IPv4 address. The sockets are non-blocking and
// close-on-exec, and reuse addresses of closed connections (SO_REUSEADDR). Connections accepted from them send small
// messages at once (TCP_NODELAY), and are dropped once sent data has not been acknowledged for `user_timeout` (zero:
// the system's default). Errors: UNAVAILABLE with an address and the system's reason if one of the addresses is in use
// or not allowed, or if this machine has none of them.
absl::StatusOr<TcpSockets> ListenTcp(const std::string& host, const std::string& port, absl::Duration user_timeout);

}  // namespace attnd::server
