#include "client/attnctl/server.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/attnctl/usage.h"
#include "contract/unix_name.h"

namespace attnd::ctl {

std::string ServerAddress(const Flags& flags) {
  if (!flags.server.value().empty()) return flags.server.value();
  const char* environment = std::getenv("ATTND_SERVER");
  return environment != nullptr && *environment != '\0' ? environment : "127.0.0.1:50051";
}

absl::Status CheckAddress(const Flags& flags) {
  const std::string address = ServerAddress(flags);
  if (!contract::IsUnixName(address) || !contract::UnixPath(address).value_or("").empty()) return absl::OkStatus();
  return UsageError(absl::StrCat("--server: expected host:port or unix:/path, got ", Shown(address)),
                    "write it as `attnd --listen` has it; of a path, '%', '?' and '#' are written %25, %3f and %23");
}

absl::StatusOr<Client> Connect(const Flags& flags) {
  if (absl::Status s = CheckAddress(flags); !s.ok()) return s;
  ClientOptions options;
  options.user_agent = "attnctl";
  options.local_calls = !flags.grpc_only.value();
  options.retry.max_time = flags.retry_for.value();
  // This process has not reached any server yet.
  options.retry.wait_for_first_server = true;
  options.retry.enabled = options.retry.max_time > absl::ZeroDuration();
  return Client::Create(ServerAddress(flags), options);
}

CallOptions Options(const Flags& flags) {
  CallOptions options;
  options.deadline = absl::Now() + flags.timeout.value();
  return options;
}

}  // namespace attnd::ctl
