// Options of a client and of its calls: plain structs, which several threads may read at once. A client keeps no
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

// When a client sends a call again because a server refused or lost it (UNAVAILABLE, CANCELLED that the caller did not
// request, or gRPC's UNKNOWN "Stream removed"), as happens while servers restart. Calls that change nothing are
// retried, on another server if there is one: Compute, OpenSession, ListSessions, GetBias, GetServerInfo, GetModel and
// the lists of models. LoadModel, ReloadModel, UploadTable, UnloadModel and EvictSession are sent once, since after a
// failure it is unknown whether the server executed them; they first wait for a connection.
struct RetryOptions {
  bool enabled = true;

  // The last attempt of a call begins within this time of the call's start, and before its deadline. Until then the
  // call waits for a server that this client has reached before and cannot reach now. If no server answers, the call
  // ends with the error of its last attempt.
  absl::Duration max_time = absl::Seconds(30);
  // Also wait for a server that this client has never reached. If false, an address on which nothing listens is an
  // error at once: it is more likely wrong than about to be served.
  bool wait_for_first_server = false;

  // Wait before the first retry; doubles with each retry, up to the maximum. The second half of each wait is random.
  absl::Duration initial_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(1);

  // The client may send `budget` retries for each call, and in addition `reserve_per_second` retries each second, saved
  // up for at most ten seconds. So a server in trouble gets little more than the calls it would get without retries,
  // and a single caller still gets its retries.
  double budget = 0.2;
  double reserve_per_second = 10;
};

struct ClientOptions {
  // null: no encryption. Otherwise e.g. grpc::SslCredentials(...), from <grpcpp/security/credentials.h>.
  std::shared_ptr<grpc::ChannelCredentials> credentials;

  // Prefix of the library's own user agent.
  std::string user_agent;

  // How a target with several addresses is used: "pick_first" or "round_robin".
  std::string load_balancing_policy = "pick_first";

  // Pass tensors in shared memory if the target is a Unix socket and the server offers it (see SharedBuffer).
  bool shared_memory = true;

  // Send attention calls over the socket next to the server's Unix socket (PATH.shm) instead of gRPC, if the target is
  // a Unix socket, the server offers it, and there are no `credentials`. A small call then takes a fraction of the
  // time; results, errors, deadlines, cancellation and retries are the same. These calls still use gRPC: calls with
  // metadata, calls that do not fit into a datagram, and calls beyond 64 at once of Compute or beyond the server's
  // limit (256) of ComputeFuture and ComputeAsync. ComputeReply::transport tells which transport a call used.
  //
  // Sessions use the same socket, with a connection for each session. Sessions with metadata, without `shared_memory`
  // or with more than 1024 rows use gRPC. SessionFacts::transport tells.
  bool local_calls = true;

  // While calls wait: if nothing has arrived on a connection for keepalive_time, the client pings the server. If no
  // reply comes within keepalive_timeout, it closes the connection and its calls fail with UNAVAILABLE. A TCP
  // connection is also closed if the peer accepts none of the sent bytes for keepalive_timeout. An infinite
  // keepalive_time turns both off. gRPC pings at most once a second, however short keepalive_time is; attnd allows that
  // (--min_ping_interval), other servers may not.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);

  RetryOptions retry;
};

struct CallOptions {
  // The call fails with DEADLINE_EXCEEDED at this time, here and on the server. gRPC reads the system clock once, when
  // the call begins; from then on it uses a monotonic clock, and sends the server the time left, not a time of day. So
  // a clock that is set during the call, or that differs from the server's, does no harm; a clock that is set between
  // the computation of `deadline` and the start of the call does.
  absl::Time deadline = absl::InfiniteFuture();

  // Also wait, until the deadline, for a server that this client has never reached. If false, that is UNAVAILABLE at
  // once.
  bool wait_for_ready = false;

  // Sent as gRPC metadata. Keys are lower case.
  std::vector<std::pair<std::string, std::string>> metadata;

  // Ends the call early with CANCELLED. May be null.
  std::shared_ptr<Cancellation> cancellation;
};

}  // namespace attnd
