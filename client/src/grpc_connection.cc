#include "client/src/grpc_connection.h"

#include <utility>

#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "client/src/context.h"
#include "client/src/convert.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

class GrpcConnection : public Connection {
 public:
  GrpcConnection(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<AttentionCaller> attention)
      : attention_(std::move(attention)), models_(channel), server_(channel) {}

  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options) override {
    return attention_->Compute(request, options);
  }

  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) override {
    attention_->ComputeAsync(std::move(request), std::move(options), std::move(done));
  }

  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes) override { return attention_->AllocateBuffer(bytes); }

  absl::StatusOr<std::vector<Model>> ListModels(const CallOptions& options) override {
    std::vector<Model> models;
    v1::ListModelsRequest request;
    do {
      absl::StatusOr<v1::ListModelsResponse> page = Call(models_, &ModelStub::ListModels, request, options);
      if (!page.ok()) return page.status();
      for (const v1::Model& model : page->models()) models.push_back(FromProto(model));
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return models;
  }

  absl::StatusOr<Model> GetModel(const std::string& name, std::uint64_t version, bool include_values,
                                 const CallOptions& options) override {
    v1::GetModelRequest request;
    request.set_name(name);
    request.set_version(version);
    request.set_include_values(include_values);
    return ModelOf(Call(models_, &ModelStub::GetModel, request, options));
  }

  absl::StatusOr<Model> LoadModel(const std::string& path, const std::string& name,
                                  const CallOptions& options) override {
    v1::LoadModelRequest request;
    request.set_path(path);
    request.set_name(name);
    return ModelOf(Call(models_, &ModelStub::LoadModel, request, options));
  }

  absl::StatusOr<Model> ReloadModel(const std::string& name, const CallOptions& options) override {
    v1::ReloadModelRequest request;
    request.set_name(name);
    return ModelOf(Call(models_, &ModelStub::ReloadModel, request, options));
  }

  absl::Status UnloadModel(const std::string& name, const CallOptions& options) override {
    v1::UnloadModelRequest request;
    request.set_name(name);
    return Call(models_, &ModelStub::UnloadModel, request, options).status();
  }

  absl::StatusOr<Model> UploadTable(const std::string& model, const Table& table, bool replace,
                                    const CallOptions& options) override {
    v1::UploadTableRequest request;
    request.set_model(model);
    *request.mutable_table() = ToProto(table);
    request.set_replace(replace);
    return ModelOf(Call(models_, &ModelStub::UploadTable, request, options));
  }

  absl::StatusOr<BiasReply> GetBias(const BiasRequest& request, const CallOptions& options) override {
    const auto response = Call(models_, &ModelStub::GetBias, ToProto(request), options);
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

  absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& options) override {
    const auto response = Call(server_, &ServerStub::GetServerInfo, v1::GetServerInfoRequest(), options);
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

 private:
  using ModelStub = v1::ModelService::Stub;
  using ServerStub = v1::ServerService::Stub;

  template <typename Stub, typename Request, typename Response>
  static absl::StatusOr<Response> Call(Stub& stub,
                                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                       const Request& request, const CallOptions& options) {
    const auto context = MakeContext(options);
    if (!context.ok()) return context.status();
    Response response;
    const grpc::Status status = (stub.*method)(context->get(), request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

  template <typename Response>
  static absl::StatusOr<Model> ModelOf(const absl::StatusOr<Response>& response) {
    if (!response.ok()) return response.status();
    return FromProto(response->model());
  }

  const std::shared_ptr<AttentionCaller> attention_;
  ModelStub models_;
  ServerStub server_;
};

}  // namespace

std::shared_ptr<Connection> MakeGrpcConnection(const std::shared_ptr<grpc::Channel>& channel,
                                               std::shared_ptr<AttentionCaller> attention) {
  return std::make_shared<GrpcConnection>(channel, std::move(attention));
}

}  // namespace attnd::client
