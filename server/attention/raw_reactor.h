// The reactor of the attention calls, on raw bytes.
#pragma once

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"

namespace attnd::server {

// Of streams, and of unary calls whose message the server reads itself.
using RawReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

}  // namespace attnd::server
