// ServerService: facts about this server.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "attnd/v1/server.grpc.pb.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "memory/no_memory.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/status.h"

namespace attnd::server {

using InfoServiceBase = v1::ServerService::WithRawCallbackMethod_GetServerInfo<v1::ServerService::Service>;

// Answers with facts that do not change while a server runs, on gRPC's thread: it waits for nothing. Thread-safe.
class InfoService final : public InfoServiceBase {
 public:
  explicit InfoService(v1::GetServerInfoResponse info) : info_(std::move(info)) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override {
    grpc::Status status;
    const absl::Status answered = memory::CatchNoMemoryIn([&] {
      grpc::ByteBuffer bytes = *request;  // parsing takes its own reference away
      v1::GetServerInfoRequest parsed;
      bool own = false;
      status = grpc::SerializationTraits<v1::GetServerInfoRequest>::Deserialize(&bytes, &parsed);
      if (!status.ok()) return;
      status = grpc::SerializationTraits<v1::GetServerInfoResponse>::Serialize(info_, response, &own);
    });
    return FinishNow(*context, answered.ok() ? std::move(status) : ToGrpc(answered));
  }

  const v1::GetServerInfoResponse& info() const { return info_; }

 private:
  const v1::GetServerInfoResponse info_;
};

}  // namespace attnd::server
