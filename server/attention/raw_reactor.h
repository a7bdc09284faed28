// The reactor of attention and session calls, on raw bytes.
#pragma once

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"

namespace attnd::server {

// For streams, and for unary calls whose message the server reads itself.
using RawReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

}  // namespace attnd::server
