// ServerService: facts about this server.
#pragma once

#include <utility>

#include "attnd/v1/server.grpc.pb.h"
#include "server/rpc/finish_now.h"

namespace attnd::server {

// Answers with facts that do not change while a server runs, on gRPC's thread: it waits for nothing. Thread-safe.
class InfoService final : public v1::ServerService::CallbackService {
 public:
  explicit InfoService(v1::GetServerInfoResponse info) : info_(std::move(info)) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest*,
                                          v1::GetServerInfoResponse* response) override {
    *response = info_;
    return FinishNow(*context, grpc::Status::OK);
  }

  const v1::GetServerInfoResponse& info() const { return info_; }

 private:
  const v1::GetServerInfoResponse info_;
};

}  // namespace attnd::server
