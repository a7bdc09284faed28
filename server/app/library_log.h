// The log lines of gRPC and protobuf.
#pragma once

namespace attnd::server {

// Sends the lines of gRPC and protobuf to spdlog's default logger. Call before other threads exist.
void TakeLibraryLogs();

}  // namespace attnd::server
