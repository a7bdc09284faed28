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
#include "client/attnctl/usage.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

using grpc::health::v1::HealthCheckResponse;

// One call, not through a proxy: it checks the server, not the way to it.
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
  const absl::Status failed(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (!absl::IsNotFound(failed)) return failed;
  return WithAdvice(absl::NotFoundError(absl::StrCat("--service: expected a service that the server has, got ",
                                                     Shown(flags.service.value()))),
                    "leave it out to ask about the whole server; `--service liveness` asks whether it is alive");
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  if (absl::Status s = CheckAddress(flags); !s.ok()) return s;
  const auto status = Check(flags);
  if (!status.ok()) return status.status();
  const std::string name = HealthCheckResponse::ServingStatus_Name(*status);
  if (flags.WantsJson()) {
    const nlohmann::ordered_json json = {{"service", flags.service.value()}, {"status", name}};
    if (absl::Status said = WriteOutput("", json.dump(2) + "\n"); !said.ok()) return said;
  }
  if (*status == HealthCheckResponse::SERVING) {
    return flags.WantsJson() ? absl::OkStatus() : WriteOutput("", absl::StrCat(name, "\n"));
  }
  return WithAdvice(absl::FailedPreconditionError(absl::StrCat(
                        flags.service.value().empty() ? "the server" : flags.service.value(), " is ", name)),
                    "call another server with --server, or wait until this one serves");
}

}  // namespace

Command HealthCommand() {
  return {
      "health",
      "",
      "ask whether the server, or one of its services, can be called",
      "Prints SERVING and exits with 0 if so; exits with 1 for any other status. The service `liveness` stays SERVING\n"
      "while a stopping server answers the calls that it has accepted.",
      {"service", "json", "format"},
      Run,
      {},
      TextOrJson()};
}

}  // namespace attnd::ctl
