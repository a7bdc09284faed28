// What gRPC counts of a server's calls, those that no service has seen among them.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace attnd::server {

struct GrpcCalls {
  std::int64_t begun = 0;  // arrived
  std::int64_t ended = 0;  // answers sent, or cancelled; never counted for a call that reached no service
};

// channelz's name for the gRPC server of this process that was made last; 0 if there is none.
std::int64_t NewestGrpcServer();

// Of that server. None where channelz is off. Thread-safe.
GrpcCalls CountGrpcCalls(std::int64_t grpc_server);

// What channelz's JSON says of one server.
GrpcCalls CallsInChannelz(absl::string_view json);

}  // namespace attnd::server
