#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "schedule/scheduler.h"
#include "server/listen_address.h"
#include "server/proto_time.h"
#include "server/settings.h"
#include "server/status.h"
#include "server/status_macros.h"
#include "server/unix_socket.h"
#include "server/version.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

// Threads for calls that may block (loading a model, reflection), beside those that compute.
constexpr int kBlockingThreads = 8;

// From its shutdown until a client has heard of it, gRPC answers that client's calls with CANCELLED, which says nothing
// of whether they may be tried again. For this long before, they get UNAVAILABLE, and clients that heed it turn
// elsewhere.
constexpr absl::Duration kRefusing = absl::Milliseconds(500);

// What gRPC reads from a connection at a time, at least: fewer calls of the system for each message. Measured in
// docs/performance.md, "Settings of the channel"; tests/e2e/settings_test.cc sees it in force.
constexpr int kReadBytes = 256 << 10;

model::RegistryOptions RegistryOptionsOf(const Options& options) {
  model::RegistryOptions registry;
  registry.model_root = options.model_root;
  registry.max_models = options.limits.max_models;
  registry.max_table_values = options.limits.max_table_values;
  registry.max_model_file_bytes = options.limits.max_model_file_bytes;
  registry.log = [](const std::string& line) { spdlog::warn("{}", line); };
  return registry;
}

v1::GetServerInfoResponse InfoOf(const Options& options, const kernel::Kernel& kernel, int threads) {
  v1::GetServerInfoResponse info;
  info.set_version(kVersion);
  info.set_kernel(std::string(kernel::NameOf(kernel)));
  for (const kernel::Kernel* available : kernel::AvailableKernels()) {
    info.add_available_kernels(std::string(kernel::NameOf(*available)));
  }
  info.set_threads(threads);
  *info.mutable_started_at() = ToProto(absl::Now());
  const Limits& limits = options.limits;
  v1::Limits& proto = *info.mutable_limits();
  proto.set_max_request_bytes(limits.max_request_bytes);
  proto.set_max_result_bytes(limits.max_result_bytes);
  proto.set_max_dim(limits.max_dim);
  proto.set_max_head_dim(limits.max_head_dim);
  proto.set_max_models(limits.max_models);
  proto.set_max_table_values(limits.max_table_values);
  proto.set_max_bias_cells(limits.max_bias_cells);
  proto.set_max_model_file_bytes(limits.max_model_file_bytes);
  proto.set_max_page_size(limits.max_page_size);
  proto.set_max_inflight_bytes(limits.max_inflight_bytes);
  proto.set_max_header_bytes(static_cast<std::int64_t>(kMaxHeaderBytes));
  proto.set_max_shared_bytes(options.shared_memory ? limits.max_shared_bytes : 0);
  *info.mutable_settings() = {options.process_settings.begin(), options.process_settings.end()};
  *info.add_settings() = KernelSetting(kernel, options.kernel);
  *info.add_settings() = RequestedSetting("grpc_read_bytes", absl::StrCat("at least ", kReadBytes, " bytes a read"));
  return info;
}

SharedMemoryLimits SharedLimits(const Options& options) {
  SharedMemoryLimits limits;
  limits.max_total_bytes = options.limits.max_shared_bytes;
  limits.max_connection_bytes = (options.limits.max_shared_bytes + 1) / 2;
  return limits;
}

// What holds for every connection, whatever the services.
void Configure(const Options& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.limits.max_request_bytes));
  builder.SetMaxSendMessageSize(-1);
  // A compressed message's size says nothing of what it becomes, and tensors hardly shrink: refused.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  // Two servers on one port would each get some of the connections: refused too.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadBytes);
  builder.AddChannelArgument(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadBytes);
  // Bounds what has been received and not admitted yet. Beyond it gRPC drops whole connections, so calls should meet
  // the limit on those in flight first.
  grpc::ResourceQuota quota("attnd");
  quota.Resize(static_cast<std::size_t>(options.limits.max_inflight_bytes + options.limits.max_request_bytes));
  quota.SetMaxThreads(kBlockingThreads);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
}

}  // namespace

Server::Server(const Options& options, const kernel::Kernel& kernel)
    : options_(options),
      kernel_(kernel),
      shared_memory_(options.shared_memory ? std::make_shared<SharedMemory>(SharedLimits(options)) : nullptr),
      registry_(RegistryOptionsOf(options)),
      engine_(options.limits, registry_, kernel, options.threads > 0 ? options.threads : schedule::DefaultThreads(),
              shared_memory_.get()),
      attention_service_(engine_, gate_),
      model_service_(options.limits, registry_),
      server_service_(InfoOf(options, kernel, engine_.threads())) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Options& options) {
  ATTND_RETURN_IF_ERROR(CheckOptions(options));
  ATTND_ASSIGN_OR_RETURN(const kernel::Kernel* kernel, kernel::ChooseKernel(options.kernel));
  std::unique_ptr<Server> server(new Server(options, *kernel));
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
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Configure(options_, builder);
  std::vector<int> ports(options_.listen.size(), 0);
  for (std::size_t i = 0; i < ports.size(); ++i) {
    builder.AddListeningPort(options_.listen[i], grpc::InsecureServerCredentials(), &ports[i]);
  }
  builder.RegisterService(&attention_service_);
  builder.RegisterService(&model_service_);
  builder.RegisterService(&server_service_);
  {
    const SocketModeScope scope(options_.unix_socket_mode);
    grpc_server_ = builder.BuildAndStart();
  }
  if (grpc_server_ == nullptr) return absl::UnavailableError("cannot listen on the addresses of --listen");
  for (std::size_t i = 0; i < ports.size(); ++i) addresses_.push_back(WithPort(options_.listen[i], ports[i]));
  ATTND_RETURN_IF_ERROR(ShareMemory());
  grpc_server_->GetHealthCheckService()->SetServingStatus(kLivenessName, true);
  SetServing(true);
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

void Server::SetServing(bool serving) {
  // One name after another: the interface's own Shutdown would say the process is dead.
  for (const char* name : {"", v1::AttentionService::service_full_name(), v1::ModelService::service_full_name(),
                           v1::ServerService::service_full_name()}) {
    grpc_server_->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

std::int64_t Server::Stop() {
  const absl::Time deadline = absl::Now() + options_.drain;
  SetServing(false);
  gate_.Close();
  const absl::Time refused_long_enough = std::min(absl::Now() + kRefusing, deadline);
  const std::int64_t left = gate_.AwaitEmpty(deadline);
  absl::SleepFor(refused_long_enough - absl::Now());
  grpc_server_->Shutdown(absl::ToChronoTime(deadline));
  grpc_server_->Wait();
  return left;
}

std::string Server::kernel_name() const { return std::string(kernel::NameOf(kernel_)); }

}  // namespace attnd::server
