// ServerService: information about this server.
#pragma once

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "attnd/v1/server.grpc.pb.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "memory/no_memory.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/on_arena.h"
#include "server/rpc/status.h"

namespace attnd::server {

using InfoServiceBase = v1::ServerService::WithRawCallbackMethod_GetServerInfo<v1::ServerService::Service>;

// Answers with the constant information about a running server and with what is in use now. Runs on gRPC's thread,
// without waiting. Thread-safe.
class InfoService final : public InfoServiceBase {
 public:
  // Adds to an answer what is in use now. Thread-safe; must not wait.
  using AddUse = std::function<void(v1::GetServerInfoResponse&)>;

  explicit InfoService(v1::GetServerInfoResponse info, AddUse add_use = nullptr)
      : info_(std::move(info)), add_use_(std::move(add_use)) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override {
    grpc::Status status;
    const absl::Status answered = memory::CatchNoMemoryIn([&] {
      grpc::ByteBuffer bytes = *request;  // parsing clears its buffer
      v1::GetServerInfoRequest parsed;
      bool own = false;
      status = grpc::SerializationTraits<v1::GetServerInfoRequest>::Deserialize(&bytes, &parsed);
      if (!status.ok()) return;
      OnArena<v1::GetServerInfoResponse> answer;
      *answer = info_;
      if (add_use_ != nullptr) add_use_(*answer);
      status = grpc::SerializationTraits<v1::GetServerInfoResponse>::Serialize(*answer, response, &own);
    });
    return FinishNow(*context, answered.ok() ? std::move(status) : ToGrpc(answered));
  }

  // The constant information.
  const v1::GetServerInfoResponse& info() const { return info_; }

 private:
  const v1::GetServerInfoResponse info_;
  const AddUse add_use_;
};

}  // namespace attnd::server
