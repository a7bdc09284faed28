#include "attnd/connection.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"
#include "client/src/attention_caller.h"
#include "client/src/grpc_connection.h"
#include "client/src/local_calls.h"
#include "client/src/local_mux.h"
#include "client/src/process.h"
#include "client/src/retry.h"
#include "client/src/target.h"
#include "contract/unix_name.h"

namespace attnd {
namespace {

absl::Status CheckOptions(const std::string& target, const ClientOptions& options) {
  const auto invalid = [](std::string field, std::string expected, std::string got) {
    return ErrorWithDetail(absl::StatusCode::kInvalidArgument, {field, expected, got});
  };
  if (target.empty()) return invalid("target", "host:port, dns:///name:port or unix:///path", "an empty string");
  if (contract::IsUnixName(target) && !contract::UnixPath(target).has_value()) {
    return invalid("target", contract::kUnixNames, target);
  }
  if (options.load_balancing_policy != "pick_first" && options.load_balancing_policy != "round_robin") {
    return invalid("load_balancing_policy", "pick_first or round_robin", options.load_balancing_policy);
  }
  for (const auto& [field, value] : {std::pair{"keepalive_time", options.keepalive_time},
                                     std::pair{"keepalive_timeout", options.keepalive_timeout}}) {
    if (value < absl::Milliseconds(1)) return invalid(field, "at least 1ms", absl::FormatDuration(value));
  }
  const RetryOptions& retry = options.retry;
  for (const auto& [field, value] :
       {std::pair{"retry.initial_backoff", retry.initial_backoff}, std::pair{"retry.max_backoff", retry.max_backoff}}) {
    if (value < absl::Milliseconds(1)) return invalid(field, "at least 1ms", absl::FormatDuration(value));
  }
  if (retry.max_time < absl::ZeroDuration()) {
    return invalid("retry.max_time", "at least 0", absl::FormatDuration(retry.max_time));
  }
  for (const auto& [field, value] :
       {std::pair{"retry.budget", retry.budget}, std::pair{"retry.reserve_per_second", retry.reserve_per_second}}) {
    if (!(value >= 0)) return invalid(field, "at least 0", absl::StrCat(value));
  }
  return absl::OkStatus();
}

// The target in a form that gRPC accepts: for example, it refuses a Unix name with a space.
std::string TargetOf(const std::string& target) {
  const std::optional<std::string> path = contract::UnixPath(target);
  return path.has_value() ? contract::UnixName(*path) : target;
}

std::string UserAgent(const ClientOptions& options) {
  return absl::StrCat(options.user_agent, options.user_agent.empty() ? "" : " ", "attnd-client/" ATTND_VERSION);
}

int Milliseconds(absl::Duration d) {
  return static_cast<int>(std::min<std::int64_t>(absl::ToInt64Milliseconds(d), std::numeric_limits<int>::max()));
}

grpc::ChannelArguments Arguments(const std::string& target, const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetLoadBalancingPolicyName(options.load_balancing_policy);
  // Finds a restarted server soon: with gRPC's defaults (30 s between DNS look-ups, 1 to 120 s between attempts to
  // connect) a client misses a rolling update.
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 1000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // The limit for one attempt to connect, including handshakes (gRPC's default: 20 s). An address that does not respond
  // delays the next one.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  // The client does its own retries (retry.h); gRPC retries only what was never sent.
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  // Ping as long as calls wait: by default gRPC stops after two pings without data.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // As in the server: docs/performance.md, "Settings of the channel".
  constexpr int kReadBytes = 256 << 10;
  arguments.SetInt(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadBytes);
  arguments.SetInt(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadBytes);
  // An http_proxy in the environment is meant for other machines.
  if (client::IsLocalTarget(target)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetUserAgentPrefix(UserAgent(options));
  return arguments;
}

client::StreamPlan PlanFor(const ClientOptions& options) {
  // A stream stays with one server. One stream is enough for one server; eight let the pieces of a call reach every one
  // of several servers.
  constexpr int kStreamsOverServers = 8;
  client::StreamPlan plan;
  if (options.load_balancing_policy == "round_robin") plan.streams = kStreamsOverServers;
  return plan;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> Connect(const std::string& target, const ClientOptions& options) {
  if (auto s = CheckOptions(target, options); !s.ok()) return s;
  if (auto s = client::CheckProcess(); !s.ok()) return s;
  const auto credentials = options.credentials != nullptr ? options.credentials : grpc::InsecureChannelCredentials();
  const auto channel = grpc::CreateCustomChannel(TargetOf(target), credentials, Arguments(target, options));
  const auto memory = options.shared_memory ? client::SharedMemory::ForTarget(target) : nullptr;
  // The local socket does not provide the protection that credentials require.
  const bool by_local = options.local_calls && options.credentials == nullptr;
  const auto keepalive = client::Keepalive::Of(options.keepalive_time, options.keepalive_timeout);
  const auto local = by_local ? client::LocalCalls::ForTarget(target, UserAgent(options), keepalive) : nullptr;
  const auto mux = by_local ? client::LocalMux::ForTarget(target, UserAgent(options), keepalive) : nullptr;
  const auto retry = std::make_shared<client::RetryPolicy>(options.retry, channel);
  // A session's long prompts do not fit into a datagram, so without shared memory sessions use gRPC.
  const auto sessions = memory != nullptr ? local : nullptr;
  return client::MakeGrpcConnection(
      retry, std::make_shared<client::AttentionCaller>(retry, memory, PlanFor(options), local, mux), sessions);
}

}  // namespace attnd
