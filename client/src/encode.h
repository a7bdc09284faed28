// The attention call's requests without copies: ordinary protobuf bytes whose tensors stay where they are.
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

// A serialised ComputeAttentionRequest. Each large tensor is a slice that borrows the caller's memory and holds its
// TensorView's owner, or `loan` if it has none, until gRPC has let go of the slice. Small tensors are copied, which is
// cheaper than lending them.
grpc::ByteBuffer EncodeRequest(const ComputeRequest& request, const Shape& shape,
                               const std::shared_ptr<const void>& loan, const WireFields& fields = {});

// A serialised StreamAttentionRequest, likewise. `more`: another follows on its stream.
grpc::ByteBuffer EncodePiece(std::uint64_t id, bool more, const ComputeRequest& request, const Shape& shape,
                             const std::shared_ptr<const void>& loan, const WireFields& fields = {});

}  // namespace attnd::client
