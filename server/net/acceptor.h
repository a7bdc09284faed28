// Accepts connections at listening sockets and hands them on. gRPC's own listener stops for good once the process has
// run out of descriptors (CVE-2023-4785), and has no limit on connections.
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/shm/unique_fd.h"
#include "server/net/connection_table.h"
#include "server/net/unix_socket.h"
#include "server/rpc/peers.h"

namespace attnd::server {

// How many connections may be open at once; further ones are closed as soon as they are accepted.
struct ConnectionLimits {
  std::int64_t most = 1;  // in all
  // Of one peer: a TCP address without its port, or all callers at Unix sockets. 0 means as many as stay free, so that
  // a single peer has at most half.
  std::int64_t most_of_peer = 0;
  std::vector<AddressRange> proxies;  // peers without a limit of their own
};

// One thread for all sockets. If descriptors or memory run out, connections wait in the system's queue and are accepted
// soon after there are some again. Start and Stop must be called on one thread.
class Acceptor {
 public:
  // Receives an open connection, non-blocking and close-on-exec, and owns it. Runs on the acceptor's thread.
  using Handler = std::function<void(shm::UniqueFd)>;

  // New connections beyond a limit are closed at once; open ones are not touched. Errors: the system's error if it has
  // no descriptor left.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Create(std::vector<ListeningSocket> sockets,
                                                          ConnectionLimits limits);

  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Begins to accept connections. Errors: RESOURCE_EXHAUSTED if the system has no thread left.
  absl::Status Start(Handler handler);

  // Stops listening. The system closes or refuses new connections and those not yet accepted, and the files of Unix
  // sockets are removed. Once this returns, the handler does not run any more. Connections that were handed on are not
  // touched.
  void Stop();

 private:
  // Logs a warning at most once a second, with how often it has occurred.
  class Complaint;

  Acceptor(std::vector<ListeningSocket> sockets, shm::UniqueFd stop, ConnectionLimits limits);
  void Run();
  // Accepts the connections that wait at a socket. Returns false if the system cannot give any now.
  bool AcceptAt(int socket);
  void Admit(shm::UniqueFd connection);
  bool Full() const;
  bool HasItsShare(const std::string& peer) const;

  std::vector<ListeningSocket> sockets_;
  const shm::UniqueFd stop_;
  const ConnectionLimits limits_;
  const std::unique_ptr<Complaint> too_many_;
  const std::unique_ptr<Complaint> too_many_of_peer_;
  const std::unique_ptr<Complaint> cannot_accept_;
  ConnectionTable connections_;
  std::vector<pollfd> watched_;  // used only by the thread once it runs
  Handler handler_;
  std::thread thread_;
};

}  // namespace attnd::server
