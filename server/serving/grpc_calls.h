// gRPC's counts of a server's calls, including calls that no service has seen.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace attnd::server {

struct GrpcCalls {
  std::int64_t begun = 0;  // calls that arrived
  std::int64_t ended = 0;  // calls answered or cancelled; does not count calls that reached no service
};

// Of two counts of a server, one at the beginning of its shutdown and one after its end: how many calls came in between
// and reached no service.
std::int64_t NotBegun(const GrpcCalls& before, const GrpcCalls& after);

// The channelz id of the gRPC server that this process created last; 0 if there is none.
std::int64_t NewestGrpcServer();

// The counts of that server; 0 if channelz is off. Thread-safe.
GrpcCalls CountGrpcCalls(std::int64_t grpc_server);

// Reads the counts from channelz's JSON of one server.
GrpcCalls CallsInChannelz(absl::string_view json);

}  // namespace attnd::server
