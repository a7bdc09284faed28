// The services for tools and orchestrators: health and reflection.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"
#include "server/probes/health_service.h"
#include "server/probes/open_streams.h"
#include "server/probes/reflection_service.h"

namespace attnd::server {

// Health and reflection of a server that also has `services`. Thread-safe. Must outlive the gRPC server.
class Probes {
 public:
  explicit Probes(std::vector<std::string> services);

  void Register(grpc::ServerBuilder& builder);

  // Sets the health status of "" and of the services.
  void SetServing(bool serving);

  // Ends watches and reflection streams, present and future ones. Blocks until they are over, for at most `patience`;
  // those that are left are then cancelled.
  void End(absl::Duration patience) { streams_.EndAll(patience); }

  HealthService& health() { return health_; }

 private:
  const std::vector<std::string> services_;  // whose health is reported
  const std::vector<std::string> listed_;    // which reflection lists
  OpenStreams streams_;
  HealthService health_;
  ReflectionService<grpc::reflection::v1::ServerReflection> reflection_;
  ReflectionService<grpc::reflection::v1alpha::ServerReflection> reflection_alpha_;
};

}  // namespace attnd::server
