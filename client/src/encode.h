// Encodes requests of the attention call without copying large tensors into the message.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>

#include "attnd/attention.h"
#include "client/messages/attention.pb.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// The message without its tensors.
v1::ComputeAttentionRequest SmallFields(const ComputeRequest& request, const Shape& shape, const WireFields& fields);

// A serialised ComputeAttentionRequest. Each large tensor is a slice of the caller's memory. The slice holds the
// TensorView's owner, or `loan` if there is none, until gRPC releases it. Small tensors are copied, which is cheaper.
grpc::ByteBuffer EncodeRequest(const ComputeRequest& request, const Shape& shape,
                               const std::shared_ptr<const void>& loan, const WireFields& fields = {});

// A serialised StreamAttentionRequest, with tensors as in EncodeRequest. `more`: another piece follows on its stream.
grpc::ByteBuffer EncodePiece(std::uint64_t id, bool more, const ComputeRequest& request, const Shape& shape,
                             const std::shared_ptr<const void>& loan, const WireFields& fields = {});

}  // namespace attnd::client
