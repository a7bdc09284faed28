// One unary call whose messages are small: those of ModelService and ServerService.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/status.h"
#include "attnd/options.h"

namespace attnd::client {

// Sends `request` by the method of that name (client/src/methods.h), waits, and parses the answer into `response`.
// Errors: the server's; RESOURCE_EXHAUSTED for a request that no message can hold; INTERNAL for an answer that is no
// `response`.
absl::Status CallMessage(const std::shared_ptr<grpc::Channel>& channel, const char* method,
                         const google::protobuf::MessageLite& request, google::protobuf::MessageLite& response,
                         const CallOptions& options);

}  // namespace attnd::client
