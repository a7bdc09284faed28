// The answers of server reflection.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1/reflection.pb.h"

namespace attnd::server {

// Answers one request from the descriptors in `pool`. `services` are the full names that list_services returns. If
// something is not found, the response is an error_response with NOT_FOUND; if the request asks for nothing, one with
// INVALID_ARGUMENT. `response` must be empty, and on an arena if memory may run out: otherwise a list that cannot grow
// leaks an element, or destroys one that was never constructed.
void Describe(const grpc::reflection::v1::ServerReflectionRequest& request, const std::vector<std::string>& services,
              const google::protobuf::DescriptorPool& pool, grpc::reflection::v1::ServerReflectionResponse& response);

}  // namespace attnd::server
