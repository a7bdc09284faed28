#include "server/serving/server.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "kernel/registry.h"
#include "schedule/scheduler.h"
#include "server/net/address.h"
#include "server/net/unix_socket.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "server/serving/grpc_settings.h"
#include "server/serving/server_info.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

// From its shutdown until a client has heard of it, gRPC answers that client's calls with CANCELLED, which says nothing
// of whether they may be tried again. For this long before, they get UNAVAILABLE, and clients that heed it turn
// elsewhere.
constexpr absl::Duration kRefusing = absl::Milliseconds(500);

// How long watches and reflection streams have for their end before they are cancelled.
constexpr absl::Duration kProbesEnd = absl::Seconds(1);

model::RegistryOptions RegistryOptionsOf(const Options& options) {
  model::RegistryOptions registry;
  registry.model_root = options.model_root;
  registry.max_models = options.limits.max_models;
  registry.max_table_values = options.limits.max_table_values;
  registry.max_model_file_bytes = options.limits.max_model_file_bytes;
  registry.log = [](const std::string& line) { spdlog::warn("{}", line); };
  return registry;
}

SharedMemoryLimits SharedLimits(const Options& options) {
  SharedMemoryLimits limits;
  limits.max_total_bytes = options.limits.max_shared_bytes;
  limits.max_connection_bytes = (options.limits.max_shared_bytes + 1) / 2;
  return limits;
}

}  // namespace

Server::Server(const Options& options, const kernel::Kernel& kernel, const std::vector<v1::Setting>& process_settings)
    : options_(options),
      kernel_(kernel),
      shared_memory_(options.shared_memory ? std::make_shared<SharedMemory>(SharedLimits(options)) : nullptr),
      registry_(RegistryOptionsOf(options)),
      engine_(options.limits, registry_, kernel, options.threads > 0 ? options.threads : schedule::DefaultThreads(),
              shared_memory_.get()),
      attention_service_(engine_, gate_),
      model_service_(options.limits, registry_),
      info_service_(InfoOf(options, kernel, engine_.threads(), process_settings)),
      probes_({v1::AttentionService::service_full_name(), v1::ModelService::service_full_name(),
               v1::ServerService::service_full_name()}) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Options& options,
                                                      const std::vector<v1::Setting>& process_settings) {
  ATTND_RETURN_IF_ERROR(CheckOptions(options));
  ATTND_ASSIGN_OR_RETURN(const kernel::Kernel* kernel, kernel::ChooseKernel(options.kernel));
  std::unique_ptr<Server> server(new Server(options, *kernel, process_settings));
  ATTND_RETURN_IF_ERROR(server->LoadModels());
  ATTND_RETURN_IF_ERROR(server->Listen());
  return server;
}

Server::~Server() {
  if (grpc_server_ != nullptr) grpc_server_->Shutdown(std::chrono::system_clock::now());
}

absl::Status Server::LoadModels() {
  ATTND_RETURN_IF_ERROR(registry_.AddEmbedded());
  if (options_.model_root.empty()) return absl::OkStatus();
  std::error_code error;
  if (!std::filesystem::is_directory(options_.model_root, error)) {
    return FieldError(absl::StatusCode::kNotFound, "--model_root", "a folder", options_.model_root);
  }
  const std::int64_t loaded = registry_.LoadRoot();
  spdlog::info("loaded {} models from {}", loaded, options_.model_root);
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  for (const std::string& address : options_.listen) ATTND_RETURN_IF_ERROR(CheckCanListen(address));
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  Configure(options_, builder);
  std::vector<int> ports(options_.listen.size(), 0);
  for (std::size_t i = 0; i < ports.size(); ++i) {
    builder.AddListeningPort(options_.listen[i], grpc::InsecureServerCredentials(), &ports[i]);
  }
  builder.RegisterService(&attention_service_);
  builder.RegisterService(&model_service_);
  builder.RegisterService(&info_service_);
  probes_.Register(builder);
  {
    const SocketModeScope scope(options_.unix_socket_mode);
    grpc_server_ = builder.BuildAndStart();
  }
  if (grpc_server_ == nullptr) return absl::UnavailableError("cannot listen on the addresses of --listen");
  for (std::size_t i = 0; i < ports.size(); ++i) addresses_.push_back(WithPort(options_.listen[i], ports[i]));
  ATTND_RETURN_IF_ERROR(ShareMemory());
  probes_.health().Set(kLivenessName, true);
  probes_.SetServing(true);
  return absl::OkStatus();
}

absl::Status Server::ShareMemory() {
  if (shared_memory_ == nullptr) return absl::OkStatus();
  for (const std::string& address : options_.listen) {
    const std::optional<std::string> path = UnixPathOf(address);
    if (!path.has_value()) continue;
    ATTND_ASSIGN_OR_RETURN(shared_memory_listeners_.emplace_back(),
                           SharedMemoryListener::Create(absl::StrCat(*path, shm::kSocketSuffix),
                                                        options_.unix_socket_mode, shared_memory_));
  }
  return absl::OkStatus();
}

std::int64_t Server::Stop() {
  const absl::Time deadline = absl::Now() + options_.drain;
  probes_.SetServing(false);
  gate_.Close();
  const absl::Time refused_long_enough = std::min(absl::Now() + kRefusing, deadline);
  const std::int64_t left = gate_.AwaitEmpty(deadline);
  absl::SleepFor(refused_long_enough - absl::Now());
  probes_.End(kProbesEnd);
  grpc_server_->Shutdown(absl::ToChronoTime(deadline));
  grpc_server_->Wait();
  return left;
}

std::string Server::kernel_name() const { return std::string(kernel::NameOf(kernel_)); }

}  // namespace attnd::server
