// Settings of the gRPC server and its connections, independent of the services.
#pragma once

#include "attnd/v1/server.pb.h"
#include "grpcpp/server_builder.h"
#include "server/config/options.h"

namespace attnd::server {

// Sets message sizes, compression, read sizes, concurrent calls, keepalive and age. `options` must be checked, and
// their limits fitted (fitted_limits.h).
void Configure(const Options& options, grpc::ServerBuilder& builder);

// The setting "grpc_read_bytes" of GetServerInfo.
v1::Setting ReadBytesSetting();

}  // namespace attnd::server
