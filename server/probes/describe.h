// What server reflection answers.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1/reflection.pb.h"

namespace attnd::server {

// The answer to one request from the descriptors in `pool`. `services` are the full names that list_services gives.
// What is not found is an error_response with NOT_FOUND, a request that asks for nothing one with INVALID_ARGUMENT.
grpc::reflection::v1::ServerReflectionResponse Describe(const grpc::reflection::v1::ServerReflectionRequest& request,
                                                        const std::vector<std::string>& services,
                                                        const google::protobuf::DescriptorPool& pool);

}  // namespace attnd::server
