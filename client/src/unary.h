// Unary calls with serialized messages.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>

#include <memory>

namespace attnd::client {

using UnaryRpc = grpc::ClientAsyncResponseReader<grpc::ByteBuffer>;

// Starts a call of `method` (client/src/methods.h). `queue` reports its Finish.
inline std::unique_ptr<UnaryRpc> StartUnary(const std::shared_ptr<grpc::Channel>& channel, grpc::ClientContext* context,
                                            const char* method, const grpc::ByteBuffer& bytes,
                                            grpc::CompletionQueue* queue) {
  using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;
  std::unique_ptr<UnaryRpc> rpc = Stub(channel).PrepareUnaryCall(context, method, bytes, queue);
  rpc->StartCall();
  return rpc;
}

// Starts a call and waits for its end. This thread polls, so there is no thread switch. Clears `bytes` once the call
// has started, so that only gRPC holds their memory (ByteBuffer cannot be moved).
inline grpc::Status CallUnary(const std::shared_ptr<grpc::Channel>& channel, grpc::ClientContext* context,
                              const char* method, grpc::ByteBuffer* bytes, grpc::ByteBuffer* answer) {
  grpc::Status status;
  grpc::CompletionQueue queue;
  const std::unique_ptr<UnaryRpc> rpc = StartUnary(channel, context, method, *bytes, &queue);
  bytes->Clear();
  rpc->Finish(answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

}  // namespace attnd::client
