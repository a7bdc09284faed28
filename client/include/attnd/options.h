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

struct ClientOptions {
  // null: no encryption. Otherwise e.g. grpc::SslCredentials(...), from <grpcpp/security/credentials.h>.
  std::shared_ptr<grpc::ChannelCredentials> credentials;

  // Put before the library's own user agent.
  std::string user_agent;

  // How a name with several addresses is used: "pick_first" or "round_robin".
  std::string load_balancing_policy = "pick_first";

  // Hand tensors over in shared memory where the target is a Unix socket and the server offers it (see SharedBuffer).
  bool shared_memory = true;

  // While calls wait, a connection on which nothing has arrived for keepalive_time is asked for a sign of life, and is
  // given up (its calls fail with UNAVAILABLE) if none comes within keepalive_timeout; so is a TCP connection whose
  // peer accepts none of the bytes sent for so long. An infinite keepalive_time turns both off. gRPC pings at most once
  // a second, however short keepalive_time is; attnd allows that (--min_ping_interval), other servers may not.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
};

struct CallOptions {
  // The call fails with DEADLINE_EXCEEDED at this time, here and on the server. gRPC looks at the system's clock once,
  // as the call begins: from then on it counts down what is left by a monotonic clock, and sends the server what is
  // left and no time of day. So a clock that is set while the call runs, or that differs from the server's, does no
  // harm; one that is set between the making of `deadline` and the call's begin does.
  absl::Time deadline = absl::InfiniteFuture();

  // Wait, until the deadline, for a server that cannot be reached yet. Otherwise that is UNAVAILABLE at once.
  bool wait_for_ready = false;

  // Sent along as gRPC metadata. Keys are lower case.
  std::vector<std::pair<std::string, std::string>> metadata;

  // Ends the call early with CANCELLED. May be null.
  std::shared_ptr<Cancellation> cancellation;
};

}  // namespace attnd
