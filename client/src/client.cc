#include "attnd/client.h"

#include <memory>
#include <utility>

namespace attnd {

absl::StatusOr<Client> Client::Create(const std::string& target, const ClientOptions& options) {
  absl::StatusOr<std::shared_ptr<Connection>> connection = Connect(target, options);
  if (!connection.ok()) return connection.status();
  return Client(*std::move(connection));
}

absl::StatusOr<ComputeReply> Client::Compute(const ComputeRequest& request, const CallOptions& options) {
  return connection_->Compute(request, options);
}

std::future<absl::StatusOr<ComputeReply>> Client::ComputeFuture(ComputeRequest request, CallOptions options) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<ComputeReply>>>();
  auto future = promise->get_future();
  ComputeAsync(std::move(request), std::move(options),
               [promise](absl::StatusOr<ComputeReply> reply) { promise->set_value(std::move(reply)); });
  return future;
}

void Client::ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) {
  connection_->ComputeAsync(std::move(request), std::move(options), std::move(done));
}

absl::StatusOr<std::unique_ptr<Session>> Client::OpenSession(const SessionRequest& request,
                                                             const CallOptions& options) {
  return connection_->OpenSession(request, options);
}

absl::StatusOr<std::vector<OpenSessionInfo>> Client::ListSessions(const CallOptions& options) {
  return connection_->ListSessions(options);
}

absl::Status Client::EvictSession(std::uint64_t id, const CallOptions& options) {
  return connection_->EvictSession(id, options);
}

absl::StatusOr<SharedBuffer> Client::AllocateBuffer(std::size_t bytes) { return connection_->AllocateBuffer(bytes); }

absl::StatusOr<ModelList> Client::ListAllModels(const CallOptions& options) {
  return connection_->ListAllModels(options);
}

absl::StatusOr<std::vector<Model>> Client::ListModels(const CallOptions& options) {
  return connection_->ListModels(options);
}

absl::StatusOr<std::vector<FailedModel>> Client::ListFailedModels(const CallOptions& options) {
  return connection_->ListFailedModels(options);
}

absl::StatusOr<Model> Client::GetModel(const std::string& name, std::uint64_t version, bool include_values,
                                       const CallOptions& options) {
  return connection_->GetModel(name, version, include_values, options);
}

absl::StatusOr<Model> Client::LoadModel(const std::string& path, const std::string& name, const CallOptions& options) {
  return connection_->LoadModel(path, name, options);
}

absl::StatusOr<Model> Client::ReloadModel(const std::string& name, const CallOptions& options) {
  return connection_->ReloadModel(name, options);
}

absl::Status Client::UnloadModel(const std::string& name, const CallOptions& options) {
  return connection_->UnloadModel(name, options);
}

absl::StatusOr<Model> Client::UploadTable(const std::string& model, const Table& table, bool replace,
                                          const CallOptions& options) {
  return connection_->UploadTable(model, table, replace, options);
}

absl::StatusOr<BiasReply> Client::GetBias(const BiasRequest& request, const CallOptions& options) {
  return connection_->GetBias(request, options);
}

absl::StatusOr<ServerInfo> Client::GetServerInfo(const CallOptions& options) {
  return connection_->GetServerInfo(options);
}

}  // namespace attnd
