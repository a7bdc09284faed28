// Settings of a client and of its calls: plain structs, which several threads may read at once. A client keeps no
// reference to its ClientOptions, and a call that has returned keeps none to its CallOptions.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "attnd/cancellation.h"

namespace grpc {
class ChannelCredentials;
}

namespace attnd {

// How a client sends calls again that a server refused or lost (UNAVAILABLE, or CANCELLED that nobody asked for), as
// they are while servers restart. Compute, GetBias, ListModels, GetModel and GetServerInfo change nothing on the server
// and are repeated, on another server if there is one. LoadModel, ReloadModel, UploadTable and UnloadModel are sent
// once, since their fate is not known after a failure; they wait for a connection first.
struct RetryOptions {
  bool enabled = true;

  // A call begins its last attempt within this time of its start, and before its deadline. Until then it waits for a
  // server that this client has reached before and cannot reach now. If none answers, the call ends with the error of
  // its last attempt.
  absl::Duration max_time = absl::Seconds(30);
  // Wait in the same way for a server that this client has never reached. Without it an address at which nobody listens
  // is an error at once: it is more likely wrong than about to be served.
  bool wait_for_first_server = false;

  // Time before the first repeat; each next one waits twice as long, up to the maximum. Half of it is random.
  absl::Duration initial_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(1);

  // The client may send as many repeats as `budget` times its calls, and beside these `reserve_per_second` every
  // second, saved up for at most ten seconds. A server in trouble then gets few calls more than without repeats, and a
  // lone caller still gets its repeats.
  double budget = 0.2;
  double reserve_per_second = 10;
};

struct ClientOptions {
  // null: no encryption. Otherwise e.g. grpc::SslCredentials(...), from <grpcpp/security/credentials.h>.
  std::shared_ptr<grpc::ChannelCredentials> credentials;

  // Put before the library's own user agent.
  std::string user_agent;

  // How a name with several addresses is used: "pick_first" or "round_robin".
  std::string load_balancing_policy = "pick_first";

  // Hand tensors over in shared memory where the target is a Unix socket and the server offers it (see SharedBuffer).
  bool shared_memory = true;

  // Attention calls go over the socket beside the server's Unix socket (PATH.shm) and not by gRPC, where the target is
  // a Unix socket, the server offers it, and there are no `credentials`: a small call then takes a fraction of the
  // time. Results, errors, deadlines, cancellation and repeats are the same. By gRPC go calls with metadata, calls that
  // fit into no datagram, and those beyond 64 of Compute and beyond what the server takes of ComputeFuture and
  // ComputeAsync (256) at once. ComputeReply::transport tells which way a call went. The same holds for sessions, each
  // of which has a connection of its own; by gRPC go those with metadata, without `shared_memory`, and of more than
  // 1024 rows. SessionFacts::transport tells.
  bool local_calls = true;

  // While calls wait, a connection on which nothing has arrived for keepalive_time is asked for a sign of life, and is
  // given up (its calls fail with UNAVAILABLE) if none comes within keepalive_timeout; so is a TCP connection whose
  // peer accepts none of the sent bytes for keepalive_timeout. An infinite keepalive_time turns both off. gRPC pings at
  // most once a second, however short keepalive_time is; attnd allows that (--min_ping_interval), other servers may
  // not.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);

  RetryOptions retry;
};

struct CallOptions {
  // The call fails with DEADLINE_EXCEEDED at this time, here and on the server. gRPC looks at the system's clock once,
  // as the call begins: from then on it counts down what is left by a monotonic clock, and sends the server what is
  // left and no time of day. So a clock that is set while the call runs, or that differs from the server's, does no
  // harm; one that is set between the making of `deadline` and the call's begin does.
  absl::Time deadline = absl::InfiniteFuture();

  // Wait, until the deadline, also for a server that this client has never reached. Otherwise that is UNAVAILABLE at
  // once.
  bool wait_for_ready = false;

  // Sent along as gRPC metadata. Keys are lower case.
  std::vector<std::pair<std::string, std::string>> metadata;

  // Ends the call early with CANCELLED. May be null.
  std::shared_ptr<Cancellation> cancellation;
};

}  // namespace attnd
