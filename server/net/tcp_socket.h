// Sockets that listen at the TCP addresses that a name stands for.
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
  std::vector<std::string> missing;  // the name's addresses that this machine has not, with the system's reason
};

// Listens at every address of `host`, at one port (0: any that is free at all of them). 0.0.0.0 and :: both stand for
// every address of both families; where the system has no IPv6, for every IPv4 address. The sockets do not block, are
// closed on exec, and reuse addresses of closed connections; what they accept sends small messages at once
// (TCP_NODELAY) and is given up once sent data has waited `user_timeout` for an answer (zero: the system's patience).
// Errors: UNAVAILABLE with an address and the system's reason if one of them is taken or not allowed, or if this
// machine has none of them.
absl::StatusOr<TcpSockets> ListenTcp(const std::string& host, const std::string& port, absl::Duration user_timeout);

}  // namespace attnd::server
