// A server's configuration: plain data, filled by flags.cc or by a test.
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
  // "host:port" (port 0: any free port), "[v6]:port" or "unix:path".
  std::vector<std::string> listen = {"127.0.0.1:50051"};
  // Permissions of Unix sockets: who may open them may use the server.
  mode_t unix_socket_mode = 0660;
  // What the local sockets beside the Unix sockets accept (docs/shared-memory.md): tensors in memory that callers
  // share, and calls.
  bool shared_memory = true;
  bool local_calls = true;
  // Folder of models; empty: none are loaded from files.
  std::string model_root;
  // Whether the start fails if a model in model_root cannot be loaded, or if there is none.
  bool strict_models = false;
  // Threads that compute; 0: schedule::DefaultThreads().
  int threads = 0;
  // Name of the kernel; empty: the best that this CPU runs.
  std::string kernel;
  // A limit that is 0 is computed from the machine.
  Limits limits = UnfittedLimits();
  // Whether one peer may hold at most as much as stays free, of the memory in flight and of shared memory.
  bool peer_shares = true;
  // Addresses and ranges ("10.0.0.0/8") of proxies whose x-forwarded-for header names the peer.
  std::vector<std::string> trusted_proxies;
  // How long a stopping server waits for the calls that it has accepted before it cancels them.
  absl::Duration drain = absl::Seconds(30);
  // A client that has sent nothing for keepalive_time gets an HTTP/2 ping, whether it has calls or not. Its connection
  // is closed if no answer comes within keepalive_timeout. An infinite keepalive_time: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  // Shortest interval between a client's pings. Three pings closer together, without an answer or data in between,
  // close the connection ("too many pings"). Half of the second that gRPC's own clients keep at least, because pings
  // jitter.
  absl::Duration min_ping_interval = absl::Milliseconds(500);
  // A new connection whose client has not begun to speak HTTP/2 within this time is closed.
  absl::Duration handshake_time = absl::Seconds(20);
  // A connection without calls for this time is closed with GOAWAY, as when the server stops; pings do not count.
  absl::Duration max_connection_idle = absl::Minutes(30);
  // After this time, plus or minus 10%, the client is told to open a new connection (GOAWAY), so that it resolves the
  // server's name again. Calls that have begun may continue for max_connection_age_grace and are then cancelled.
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration max_connection_age_grace = absl::InfiniteDuration();
  // A call ends if its caller does not read its result, or send its unary attention request, within this time plus a
  // second for every min_rate bytes. Zero or infinite: never.
  absl::Duration stall = absl::Seconds(30);
  std::int64_t min_rate = 64 << 10;
  // A call without a deadline is refused if it would wait longer than this to be computed. Infinite: never.
  absl::Duration max_queue_time = absl::Seconds(60);
  // Most sessions open at a time, in all and of one peer.
  std::int64_t max_sessions = 1024;
  std::int64_t max_peer_sessions = 256;
  // A session without a step for longer than this may be ended when another session finds no room.
  absl::Duration session_lease = absl::Minutes(1);
  // A session is ended if it has no step for session_idle, or is older than session_life. Infinite: never.
  absl::Duration session_idle = absl::Minutes(10);
  absl::Duration session_life = absl::Hours(24);
  // How long a session is kept at most after its connection is lost, if its client asks for that.
  absl::Duration session_grace = absl::Seconds(30);
  // How much of a call a client may send before the server admits the call: as much as the connection carries in a
  // round trip (up to a few MiB) if true, 64 KiB if false. True makes large calls over long distances faster; false
  // makes refused calls cheaper.
  bool receive_ahead = true;
  // trace, debug, info, warn, error or off.
  std::string log_level = "info";
};

// Whether the server has local sockets that accept shared memory; and that accept calls.
bool SharesMemory(const Options& options);
bool TakesLocalCalls(const Options& options);

// The ranges of options.trusted_proxies, which CheckOptions has accepted.
std::vector<AddressRange> TrustedProxies(const Options& options);

// Errors: INVALID_ARGUMENT naming the flag.
absl::Status CheckOptions(const Options& options);

}  // namespace attnd::server
