// The attention call's messages without copies: ordinary protobuf bytes whose tensors stay where they are.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "client/src/shape.h"

namespace attnd::client {

// A serialised ComputeAttentionRequest. Each large tensor is a slice that borrows the caller's memory and holds its
// TensorView's owner, or `loan` if it has none, until gRPC has let go of the slice. Small tensors are copied, which is
// cheaper than lending them.
grpc::ByteBuffer EncodeRequest(const ComputeRequest& request, const Shape& shape,
                               const std::shared_ptr<const void>& loan);

// A ComputeAttentionResponse to `request`: tensors are copied once, to the request's destinations or new memory, or not
// at all if the request asks for segments. Errors: INTERNAL for bytes that are no answer to `request`;
// RESOURCE_EXHAUSTED if memory for the result cannot be had. After an error the destinations' contents are undefined.
absl::StatusOr<ComputeReply> DecodeReply(grpc::ByteBuffer& bytes, const ComputeRequest& request, const Shape& shape);

}  // namespace attnd::client
