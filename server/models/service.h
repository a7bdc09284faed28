// ModelService: what the registry holds.
#pragma once

#include <vector>

#include "attnd/v1/model.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "memory/ledger.h"
#include "model/registry.h"
#include "server/config/limits.h"
#include "server/models/executor.h"
#include "server/models/methods.h"
#include "server/rpc/peers.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// The methods take messages as bytes. Parsing and serialising them is part of the work: of what may block or take long
// it is done on threads of this service and never on gRPC's, and where there is no memory for it the call gets an
// error, while gRPC's own parsing would end the process.
using ModelServiceBase =
    v1::ModelService::WithRawCallbackMethod_ListModels<v1::ModelService::WithRawCallbackMethod_GetModel<
        v1::ModelService::WithRawCallbackMethod_LoadModel<v1::ModelService::WithRawCallbackMethod_UnloadModel<
            v1::ModelService::WithRawCallbackMethod_ReloadModel<v1::ModelService::WithRawCallbackMethod_UploadTable<
                v1::ModelService::WithRawCallbackMethod_GetBias<v1::ModelService::Service>>>>>>>;

// Thread-safe. Borrows the registry, the ledger and the watch. ListModels, and GetModel without values, are answered at
// once. Calls that read files wait for each other only, and so do the rest; a call that is cancelled or past its
// deadline while it waits is dropped. A call takes memory from the ledger, in its caller's share: for its message and
// what becomes of it on arrival, and for the answer before it is made; it holds message and answer until gRPC has sent
// the latter. Whatever finds no room is refused with RESOURCE_EXHAUSTED. A call whose answer is not taken in time is
// ended.
class ModelService final : public ModelServiceBase {
 public:
  // Threads that the service starts.
  static constexpr int kFileThreads = 2;
  static constexpr int kTableThreads = 2;

  // `proxies`: those that are trusted to name their callers (server/rpc/peers.h).
  ModelService(const Limits& limits, model::Registry& registry, memory::Ledger& ledger, StallWatch& stalls,
               std::vector<AddressRange> proxies = {});

  // Whether calls wait or run. The ledger tells whether answers are not sent yet.
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
  // A call that is answered by an executor's thread.
  template <typename Request, typename Response>
  class SlowCall;
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Later(Executor& executor,
                                  grpc::Status (ModelMethods::*method)(const Request*, Response*) const,
                                  grpc::CallbackServerContext& context, const grpc::ByteBuffer& request,
                                  grpc::ByteBuffer* response);

  const ModelMethods methods_;
  memory::Ledger& ledger_;
  StallWatch& stalls_;
  const Peers peers_;
  Executor files_;   // what reads files
  Executor tables_;  // the rest
};

}  // namespace attnd::server
