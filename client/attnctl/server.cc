#include "client/attnctl/server.h"

#include <cstdlib>

#include "absl/time/clock.h"

namespace attnd::ctl {

std::string ServerAddress(const Flags& flags) {
  if (!flags.server.value().empty()) return flags.server.value();
  const char* environment = std::getenv("ATTND_SERVER");
  return environment != nullptr && *environment != '\0' ? environment : "127.0.0.1:50051";
}

absl::StatusOr<Client> Connect(const Flags& flags) {
  ClientOptions options;
  options.user_agent = "attnctl";
  options.local_calls = !flags.grpc_only.value();
  options.retry.max_time = flags.retry_for.value();
  options.retry.enabled = options.retry.max_time > absl::ZeroDuration();
  return Client::Create(ServerAddress(flags), options);
}

CallOptions Options(const Flags& flags) {
  CallOptions options;
  options.deadline = absl::Now() + flags.timeout.value();
  return options;
}

}  // namespace attnd::ctl
