// What gRPC and protobuf log.
#pragma once

namespace attnd::server {

// Their lines go to spdlog's default logger from now on. Call before other threads exist.
void TakeLibraryLogs();

}  // namespace attnd::server
