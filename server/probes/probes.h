// What tools and orchestrators ask of a server: is it well, and what does it offer.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"
#include "server/probes/health_service.h"
#include "server/probes/open_streams.h"
#include "server/probes/reflection_service.h"

namespace attnd::server {

// Health and reflection of a server with `services` beside them. Thread-safe. Outlives the gRPC server.
class Probes {
 public:
  explicit Probes(std::vector<std::string> services);

  void Register(grpc::ServerBuilder& builder);

  // What health says of "" and of the services.
  void SetServing(bool serving);

  // Ends watches and reflection streams, those that come from now on too. Blocks until they are over, but for at most
  // `patience`; what is left then is cancelled.
  void End(absl::Duration patience) { streams_.EndAll(patience); }

  HealthService& health() { return health_; }

 private:
  const std::vector<std::string> services_;  // health knows these
  const std::vector<std::string> listed_;    // reflection lists these
  OpenStreams streams_;
  HealthService health_;
  ReflectionService<grpc::reflection::v1::ServerReflection> reflection_;
  ReflectionService<grpc::reflection::v1alpha::ServerReflection> reflection_alpha_;
};

}  // namespace attnd::server
