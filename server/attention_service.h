// AttentionService on gRPC's callback API, with ComputeAttention on raw bytes.
#pragma once

#include "attnd/v1/attention.grpc.pb.h"
#include "server/attention_engine.h"

namespace attnd::server {

// Thread-safe. Borrows the engine.
class AttentionService final
    : public v1::AttentionService::WithRawCallbackMethod_ComputeAttention<v1::AttentionService::Service> {
 public:
  explicit AttentionService(AttentionEngine& engine) : engine_(engine) {}

  grpc::ServerUnaryReactor* ComputeAttention(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                             grpc::ByteBuffer* response) override;

 private:
  AttentionEngine& engine_;
};

}  // namespace attnd::server
