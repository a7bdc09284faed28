// ServerService: facts about this server.
#pragma once

#include <functional>
#include <utility>

#include "attnd/v1/server.grpc.pb.h"
#include "server/rpc/finish_now.h"

namespace attnd::server {

// Answers with facts that do not change while a server runs, and with what is in use now, on gRPC's thread: it waits for
// nothing. Thread-safe.
class InfoService final : public v1::ServerService::CallbackService {
 public:
  // Adds to an answer what is in use. Thread-safe; must not wait.
  using AddUse = std::function<void(v1::GetServerInfoResponse&)>;

  explicit InfoService(v1::GetServerInfoResponse info, AddUse add_use = nullptr)
      : info_(std::move(info)), add_use_(std::move(add_use)) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest*,
                                          v1::GetServerInfoResponse* response) override {
    *response = info_;
    if (add_use_ != nullptr) add_use_(*response);
    return FinishNow(*context, grpc::Status::OK);
  }

  // The facts that do not change.
  const v1::GetServerInfoResponse& info() const { return info_; }

 private:
  const v1::GetServerInfoResponse info_;
  const AddUse add_use_;
};

}  // namespace attnd::server
