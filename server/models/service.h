// ModelService over gRPC.
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

// The methods receive messages as bytes and parse and serialise them themselves. So messages of calls that may block or
// take long are parsed on this service's threads and not on gRPC's, and a lack of memory for that is an error of the
// call; in gRPC's own parsing it would end the process.
using ModelServiceBase =
    v1::ModelService::WithRawCallbackMethod_ListModels<v1::ModelService::WithRawCallbackMethod_GetModel<
        v1::ModelService::WithRawCallbackMethod_LoadModel<v1::ModelService::WithRawCallbackMethod_UnloadModel<
            v1::ModelService::WithRawCallbackMethod_ReloadModel<v1::ModelService::WithRawCallbackMethod_UploadTable<
                v1::ModelService::WithRawCallbackMethod_GetBias<v1::ModelService::Service>>>>>>>;

// Thread-safe. Borrows the registry, the ledger and the watch. ListModels, and GetModel without values, are answered at
// once. Other calls wait in two queues: one for calls that read files, one for the rest. A call that is cancelled or
// exceeds its deadline while it waits is dropped. A call in a queue reserves memory in its peer's share of the ledger:
// for its message on arrival, and for its answer before that is made. It holds message and answer until gRPC has sent
// the answer. A call for which there is no memory is refused with RESOURCE_EXHAUSTED. A call in a queue whose answer is
// not read in time is ended.
class ModelService final : public ModelServiceBase {
 public:
  // Threads that the service starts.
  static constexpr int kFileThreads = 2;
  static constexpr int kTableThreads = 2;

  // `proxies`: those that are trusted to name their callers (server/rpc/peers.h).
  ModelService(const Limits& limits, model::Registry& registry, memory::Ledger& ledger, StallWatch& stalls,
               std::vector<AddressRange> proxies = {});

  // Whether calls wait or run. Answers that are still being sent do not count; the ledger shows those.
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
  // A call that an executor's thread answers.
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
