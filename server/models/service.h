// ModelService: what the registry holds.
#pragma once

#include "attnd/v1/model.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "model/registry.h"
#include "server/config/limits.h"
#include "server/models/executor.h"
#include "server/models/methods.h"

namespace attnd::server {

// The methods take messages as bytes. Parsing and serialising them is part of the work: of what may block or take long
// it is done on threads of this service and never on gRPC's, and where there is no memory for it the call gets an
// error, while gRPC's own parsing would end the process.
using ModelServiceBase =
    v1::ModelService::WithRawCallbackMethod_ListModels<v1::ModelService::WithRawCallbackMethod_GetModel<
        v1::ModelService::WithRawCallbackMethod_LoadModel<v1::ModelService::WithRawCallbackMethod_UnloadModel<
            v1::ModelService::WithRawCallbackMethod_ReloadModel<v1::ModelService::WithRawCallbackMethod_UploadTable<
                v1::ModelService::WithRawCallbackMethod_GetBias<v1::ModelService::Service>>>>>>>;

// Thread-safe. Borrows the registry. ListModels, and GetModel without values, are answered at once. Calls that read
// files wait for each other only, and so do the rest; a call that is cancelled or past its deadline while it waits is
// dropped. A call is refused with RESOURCE_EXHAUSTED where those that wait hold MaxWaitingBytes().
class ModelService final : public ModelServiceBase {
 public:
  // Threads that the service starts.
  static constexpr int kFileThreads = 2;
  static constexpr int kTableThreads = 2;

  ModelService(const Limits& limits, model::Registry& registry);

  // Of each of the two kinds: requests that wait, and results that callers have not read yet.
  static std::int64_t MaxWaitingBytes(const Limits& limits);

  // Whether calls wait, run, or have results that are not sent yet.
  bool busy() const { return files_.busy() || tables_.busy(); }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ReloadModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* UploadTable(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetBias(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;

 private:
  const ModelMethods methods_;
  Executor files_;   // what reads files
  Executor tables_;  // the rest
};

}  // namespace attnd::server
