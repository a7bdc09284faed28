#include <cstdlib>

#include "absl/flags/flag.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

std::string ServerAddress() {
  if (std::string flag = absl::GetFlag(FLAGS_server); !flag.empty()) return flag;
  const char* environment = std::getenv("ATTND_SERVER");
  return environment != nullptr && *environment != '\0' ? environment : "127.0.0.1:50051";
}

absl::StatusOr<Client> Connect() {
  ClientOptions options;
  options.user_agent = "attnctl";
  return Client::Create(ServerAddress(), options);
}

CallOptions Options() {
  CallOptions options;
  options.deadline = absl::Now() + absl::GetFlag(FLAGS_timeout);
  return options;
}

}  // namespace attnd::ctl
