// What server reflection answers.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1/reflection.pb.h"

namespace attnd::server {

// Answers one request from the descriptors in `pool`. `services` are the full names that list_services gives.
// What is not found is an error_response with NOT_FOUND, a request that asks for nothing one with INVALID_ARGUMENT.
// `response` is empty, and on an arena where memory may run out: of a list that does not grow an element is lost, or
// one that was never made is destroyed.
void Describe(const grpc::reflection::v1::ServerReflectionRequest& request, const std::vector<std::string>& services,
              const google::protobuf::DescriptorPool& pool, grpc::reflection::v1::ServerReflectionResponse& response);

}  // namespace attnd::server
