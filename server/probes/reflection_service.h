// grpc.reflection.v1.ServerReflection and v1alpha.
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

// Largest request, in bytes. It is bounded because the response repeats it.
inline constexpr std::size_t kMaxReflectionRequestBytes = 64 << 10;

// A stream of requests, answered in order; holds no thread while it is idle. It ends with UNAVAILABLE when the server
// stops, with RESOURCE_EXHAUSTED for a request that is too large, and with INVALID_ARGUMENT for a malformed one.
// Borrows `services` and `streams`. Returns null if there is no memory, to which gRPC answers UNIMPLEMENTED.
ReflectionReactor* NewReflectionStream(const std::vector<std::string>& services, OpenStreams& streams,
                                       grpc::CallbackServerContext& context);

// The service of one version; the messages of both versions have the same wire format. Thread-safe. Borrows `services`
// and `streams`.
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
