// What holds for every connection of the gRPC server, whatever the services.
#pragma once

#include "attnd/v1/server.pb.h"
#include "grpcpp/server_builder.h"
#include "server/config/options.h"

namespace attnd::server {

// Most calls at once on one connection. A client learns of it when it connects, and lets further calls wait on its
// side.
inline constexpr int kMaxConcurrentStreams = 1000;

// Message sizes, compression, read sizes, calls at once, keepalive and age, and memory. `options` are checked, and
// their limits fitted.
void Configure(const Options& options, grpc::ServerBuilder& builder);

// What GetServerInfo says of them.
v1::Setting ReadBytesSetting();

}  // namespace attnd::server
