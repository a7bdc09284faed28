// Takes connections at listening sockets and hands them on. gRPC's own listener stops for good when the process has run
// out of descriptors once (CVE-2023-4785), and knows no limit on connections.
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

// How many connections may be open at once; further ones are closed as they come.
struct ConnectionLimits {
  std::int64_t most = 1;  // in all
  // Of one peer: a TCP address without its port, or all callers at Unix sockets. 0: as many as stay free then, so that
  // one alone has half of them at most.
  std::int64_t most_of_peer = 0;
  std::vector<AddressRange> proxies;  // these peers may have all
};

// One thread for all sockets. Where descriptors or memory run out the connections wait in the system's queue and are
// taken soon after there are some again. Start and Stop are for one thread.
class Acceptor {
 public:
  // Gets an open connection that does not block and is closed on exec, and must close it sometime. Runs on the
  // acceptor's thread.
  using Handler = std::function<void(shm::UniqueFd)>;

  // Connections beyond a limit are closed at once; those that are open live on. Errors: what the system says where it
  // has no descriptor left.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Create(std::vector<ListeningSocket> sockets,
                                                          ConnectionLimits limits);

  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Begins to take connections. Errors: RESOURCE_EXHAUSTED if the system has no thread left.
  absl::Status Start(Handler handler);

  // Listens no more: connections that come from now on, and those that nobody has taken yet, are closed or refused by
  // the system, and Unix sockets lose their names. The handler does not run any more once this returns. Connections
  // that were handed on are not touched.
  void Stop();

 private:
  // Says a thing at most once a second, with how often it has happened.
  class Complaint;

  Acceptor(std::vector<ListeningSocket> sockets, shm::UniqueFd stop, ConnectionLimits limits);
  void Run();
  // Takes what waits at a socket; false if the system cannot give more now.
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
  std::vector<pollfd> watched_;  // the thread's, once it runs
  Handler handler_;
  std::thread thread_;
};

}  // namespace attnd::server
