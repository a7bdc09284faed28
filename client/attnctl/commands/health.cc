#include "client/attnctl/commands/health.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace attnd::ctl {
namespace {

using grpc::health::v1::HealthCheckResponse;

// One call, and not through a proxy: it asks about the server, and not about the way to it.
absl::StatusOr<HealthCheckResponse::ServingStatus> Check(const Flags& flags) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto channel = grpc::CreateCustomChannel(ServerAddress(flags), grpc::InsecureChannelCredentials(), arguments);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(Options(flags).deadline));
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(flags.service.value());
  HealthCheckResponse response;
  const grpc::Status status = grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &response);
  if (status.ok()) return response.status();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  const auto status = Check(flags);
  if (!status.ok()) return status.status();
  const std::string name = HealthCheckResponse::ServingStatus_Name(*status);
  if (*status == HealthCheckResponse::SERVING) return WriteOutput("", absl::StrCat(name, "\n"));
  return absl::FailedPreconditionError(
      absl::StrCat(flags.service.value().empty() ? "the server" : flags.service.value(), " is ", name));
}

}  // namespace

Command HealthCommand() {
  return {
      "health",
      "",
      "ask whether the server, or one of its services, can be called",
      "Prints SERVING and exits with 0 if so; exits with 1 for any other status. The service `liveness` stays SERVING\n"
      "while a stopping server answers the calls that it has accepted.",
      {"service"},
      Run};
}

}  // namespace attnd::ctl
