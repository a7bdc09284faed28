// What holds for every connection of the gRPC server, whatever the services.
#pragma once

#include "attnd/v1/server.pb.h"
#include "grpcpp/server_builder.h"
#include "server/config/options.h"

namespace attnd::server {

// Message sizes, compression, read sizes, calls at once, keepalive and age. `options` are checked, and
// their limits fitted.
void Configure(const Options& options, grpc::ServerBuilder& builder);

// What GetServerInfo says of them.
v1::Setting ReadBytesSetting();

}  // namespace attnd::server
