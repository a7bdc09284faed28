// StreamAttention: the pieces of a job over one stream.
#pragma once

#include <cstddef>

#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/attention/engine.h"
#include "server/rpc/call_gate.h"

namespace attnd::server {

// A stream is read no further while its pieces, from their arrival until their answers are with gRPC's transport, hold
// so many bytes: so a stream holds this and one message at most, however slowly its answers are read. Room for the
// pieces that the client library has under way (4 of about 1 MiB) several times over.
inline constexpr std::size_t kStreamWindowBytes = std::size_t{16} << 20;

// The reactor of one stream, which deletes itself when the stream is over. Each piece goes through the gate as a call
// does: once it is closed further pieces are answered with UNAVAILABLE. Borrows the engine and the gate.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeAttentionStream(AttentionEngine& engine,
                                                                                 CallGate& gate,
                                                                                 grpc::CallbackServerContext& context);

}  // namespace attnd::server
