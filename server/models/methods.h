// The methods of ModelService, independent of a server.
#pragma once

#include <cstdint>

#include "attnd/v1/model.pb.h"
#include "grpcpp/support/status.h"
#include "model/registry.h"
#include "server/config/limits.h"

namespace attnd::server {

// Thread-safe. Borrows the registry. Statuses: see ModelService in proto/attnd/v1/model.proto. LoadModel and
// ReloadModel read files; UploadTable and GetBias may take long. Methods that change a model log a line. A response
// must be empty, and on an arena if memory may run out (OnArena).
class ModelMethods {
 public:
  ModelMethods(const Limits& limits, model::Registry& registry) : limits_(limits), registry_(registry) {}

  grpc::Status ListModels(const v1::ListModelsRequest* request, v1::ListModelsResponse* response) const;
  grpc::Status GetModel(const v1::GetModelRequest* request, v1::GetModelResponse* response) const;
  grpc::Status LoadModel(const v1::LoadModelRequest* request, v1::LoadModelResponse* response) const;
  grpc::Status UnloadModel(const v1::UnloadModelRequest* request, v1::UnloadModelResponse* response) const;
  grpc::Status ReloadModel(const v1::ReloadModelRequest* request, v1::ReloadModelResponse* response) const;
  grpc::Status UploadTable(const v1::UploadTableRequest* request, v1::UploadTableResponse* response) const;
  grpc::Status GetBias(const v1::GetBiasRequest* request, v1::GetBiasResponse* response) const;

  // An upper bound of the bytes that the answer takes, message and serialised form together. 0 if that is little, or if
  // the method will refuse the request.
  std::int64_t AnswerBytes(const v1::GetModelRequest& request) const;
  std::int64_t AnswerBytes(const v1::GetBiasRequest& request) const;
  template <typename Request>
  std::int64_t AnswerBytes(const Request&) const {
    return 0;
  }

 private:
  const Limits limits_;
  model::Registry& registry_;
};

}  // namespace attnd::server
