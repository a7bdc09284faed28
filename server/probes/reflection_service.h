// grpc.reflection.v1.ServerReflection, and the same as v1alpha.
#pragma once

#include <string>
#include <vector>

#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/probes/open_streams.h"

namespace attnd::server {

using ReflectionReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

// Largest request, in bytes: a response repeats it.
inline constexpr std::size_t kMaxReflectionRequestBytes = 64 << 10;

// A stream of requests, each answered in turn; it holds no thread while it is idle. It ends with UNAVAILABLE when the
// server stops, with RESOURCE_EXHAUSTED for a request that is too large and with INVALID_ARGUMENT for one that is not a
// ServerReflectionRequest. Borrows both.
ReflectionReactor* NewReflectionStream(const std::vector<std::string>& services, OpenStreams& streams,
                                       grpc::CallbackServerContext& context);

// The service of one version: the messages of both have the same bytes. Thread-safe. Borrows both.
template <typename Service>
class ReflectionService final
    : public Service::template WithRawCallbackMethod_ServerReflectionInfo<typename Service::Service> {
 public:
  ReflectionService(const std::vector<std::string>& services, OpenStreams& streams)
      : services_(services), streams_(streams) {}

  ReflectionReactor* ServerReflectionInfo(grpc::CallbackServerContext* context) override {
    return NewReflectionStream(services_, streams_, *context);
  }

 private:
  const std::vector<std::string>& services_;
  OpenStreams& streams_;
};

}  // namespace attnd::server
