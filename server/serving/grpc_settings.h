// What holds for every connection of the gRPC server, whatever the services.
#pragma once

#include "attnd/v1/server.pb.h"
#include "grpcpp/server_builder.h"
#include "server/config/options.h"

namespace attnd::server {

// Message sizes, compression, read sizes, keepalive and age, and memory. `options` are checked.
void Configure(const Options& options, grpc::ServerBuilder& builder);

// What GetServerInfo says of them.
v1::Setting ReadBytesSetting();

}  // namespace attnd::server
