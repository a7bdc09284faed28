// Calls to a gRPC server by method name, with messages as they are on the wire.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace attnd::test {

// A channel without message limits, shared with nobody. A call on it that does not end within Patience() (wait.h) fails
// the test and is cancelled; the server sees no deadline. `arguments`: beside those.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address, grpc::ChannelArguments arguments = {});
// The same with this time, without other arguments.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address, absl::Duration time);

// Calls a unary method, e.g. "/grpc.health.v1.Health/Check", and waits for its end.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     grpc::ClientContext& context, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply);

// grpc.health.v1's ServingStatus of a service: 1 SERVING, 2 NOT_SERVING. Errors: the call's; DATA_LOSS for a malformed
// answer.
absl::StatusOr<std::int64_t> ServingStatusOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                                             grpc::ClientContext& context);

}  // namespace attnd::test
