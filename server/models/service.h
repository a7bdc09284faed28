// ModelService: what the registry holds.
#pragma once

#include "attnd/v1/model.grpc.pb.h"
#include "model/registry.h"
#include "server/config/limits.h"

namespace attnd::server {

// Thread-safe. Borrows the registry. On gRPC's synchronous API, since loading reads files and may take long: its calls
// run on threads of their own, a bounded number of them, and never on those that carry attention calls.
class ModelService final : public v1::ModelService::Service {
 public:
  ModelService(const Limits& limits, model::Registry& registry) : limits_(limits), registry_(registry) {}

  grpc::Status ListModels(grpc::ServerContext* context, const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;
  grpc::Status LoadModel(grpc::ServerContext* context, const v1::LoadModelRequest* request,
                         v1::LoadModelResponse* response) override;
  grpc::Status UnloadModel(grpc::ServerContext* context, const v1::UnloadModelRequest* request,
                           v1::UnloadModelResponse* response) override;
  grpc::Status ReloadModel(grpc::ServerContext* context, const v1::ReloadModelRequest* request,
                           v1::ReloadModelResponse* response) override;
  grpc::Status UploadTable(grpc::ServerContext* context, const v1::UploadTableRequest* request,
                           v1::UploadTableResponse* response) override;
  grpc::Status GetBias(grpc::ServerContext* context, const v1::GetBiasRequest* request,
                       v1::GetBiasResponse* response) override;

 private:
  const Limits limits_;
  model::Registry& registry_;
};

}  // namespace attnd::server
