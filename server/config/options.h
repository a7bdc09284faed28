// What a server is told at start: plain data, filled by flags.cc or by a test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/config/limits.h"
#include "server/rpc/peers.h"

namespace attnd::server {

struct Options {
  // "host:port" (port 0: any free one), "[v6]:port" or "unix:path".
  std::vector<std::string> listen = {"127.0.0.1:50051"};
  // Permissions of Unix sockets: who may open them may use the server.
  mode_t unix_socket_mode = 0660;
  // At sockets beside the Unix sockets (docs/shared-memory.md), where there are any: take tensors in memory that
  // callers share, and take calls.
  bool shared_memory = true;
  bool local_calls = true;
  // Folder of models; empty: no loading from files.
  std::string model_root;
  // Whether the server starts only if every model in it can be loaded, and there is one.
  bool strict_models = false;
  // Threads that compute; 0: schedule::DefaultThreads().
  int threads = 0;
  // Name of the kernel; empty: the best that this CPU runs.
  std::string kernel;
  // Where one is 0 it follows the machine.
  Limits limits = UnfittedLimits();
  // Whether one peer may hold no more of the memory in flight, and of that which is shared, than stays free.
  bool peer_shares = true;
  // Addresses and ranges ("10.0.0.0/8") of proxies: behind them the peer is whom their x-forwarded-for names.
  std::vector<std::string> trusted_proxies;
  // How long a stopping server waits for the calls it has accepted before it cancels them.
  absl::Duration drain = absl::Seconds(30);
  // A client from which nothing has arrived for keepalive_time is asked for a sign of life (an HTTP/2 ping), calls or
  // not, and its connection is closed if none comes within keepalive_timeout. An infinite keepalive_time: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  // What clients may ask: pings closer together than this, three times without an answer or data in between, close the
  // connection ("too many pings"). Half of the second that gRPC's own clients keep at least, since pings jitter.
  absl::Duration min_ping_interval = absl::Milliseconds(500);
  // A new connection whose client has not begun to speak HTTP/2 within this time is closed.
  absl::Duration handshake_time = absl::Seconds(20);
  // A connection that has had no call for this time is closed, as a stop would do it (GOAWAY); pings are no calls.
  absl::Duration max_connection_idle = absl::Minutes(30);
  // After this time, give or take a tenth, a connection's client is told to make a new one (GOAWAY), so that it looks
  // its server's name up again; calls that have begun go on for max_connection_age_grace, and are cut off then.
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration max_connection_age_grace = absl::InfiniteDuration();
  // A result that its caller does not take within this time and a second more for each min_rate bytes ends its call.
  // Zero or infinite: never.
  absl::Duration stall = absl::Seconds(30);
  std::int64_t min_rate = 64 << 10;
  // A call without a deadline that would wait for longer than this to be computed is refused. Infinite: none is.
  absl::Duration max_queue_time = absl::Seconds(60);
  // Sessions that are open at a time, in all and of one peer.
  std::int64_t max_sessions = 1024;
  std::int64_t max_peer_sessions = 256;
  // A session without a step for longer than this may be ended where another one finds no room.
  absl::Duration session_lease = absl::Minutes(1);
  // A session without a step for the first, or older than the second, is ended. Infinite: never.
  absl::Duration session_idle = absl::Minutes(10);
  absl::Duration session_life = absl::Hours(24);
  // For how long a session may be kept whose connection is lost, if its client asks for that.
  absl::Duration session_grace = absl::Seconds(30);
  // Whether a client may send as much of a call as the connection carries in a round trip (up to some MiB) before the
  // call is let in, or 64 KiB. With it large calls over a distance are faster; without it, calls that are refused cost
  // less.
  bool receive_ahead = true;
  // trace, debug, info, warn, error or off.
  std::string log_level = "info";
};

// Whether there is a socket at which callers share memory; and one at which they call.
bool SharesMemory(const Options& options);
bool TakesLocalCalls(const Options& options);

// Of options that are checked.
std::vector<AddressRange> TrustedProxies(const Options& options);

// Errors: INVALID_ARGUMENT naming the flag.
absl::Status CheckOptions(const Options& options);

}  // namespace attnd::server
