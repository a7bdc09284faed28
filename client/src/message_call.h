// A unary call with small messages: those of ModelService and ServerService.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/status.h"
#include "attnd/options.h"

namespace attnd::client {

// Calls `method` (client/src/methods.h) with `request`, waits, and parses the reply into `response`. Errors: the
// server's; INVALID_ARGUMENT for metadata that gRPC does not allow; RESOURCE_EXHAUSTED for a request of 2 GiB or more;
// INTERNAL for a malformed reply.
absl::Status CallMessage(const std::shared_ptr<grpc::Channel>& channel, const char* method,
                         const google::protobuf::MessageLite& request, google::protobuf::MessageLite& response,
                         const CallOptions& options);

}  // namespace attnd::client
