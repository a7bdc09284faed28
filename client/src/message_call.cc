#include "client/src/message_call.h"

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <limits>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/src/context.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;

absl::StatusOr<grpc::ByteBuffer> Encode(const google::protobuf::MessageLite& message) {
  const std::size_t size = message.ByteSizeLong();
  if (size > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    return absl::ResourceExhaustedError(absl::StrCat("request: expected less than 2 GiB, got ", size, " bytes"));
  }
  const grpc::Slice slice(size);
  message.SerializeWithCachedSizesToArray(const_cast<std::uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

absl::Status CallMessage(const std::shared_ptr<grpc::Channel>& channel, const char* method,
                         const google::protobuf::MessageLite& request, google::protobuf::MessageLite& response,
                         const CallOptions& options) {
  const absl::StatusOr<std::shared_ptr<grpc::ClientContext>> context = MakeContext(options);
  if (!context.ok()) return context.status();
  const absl::StatusOr<grpc::ByteBuffer> bytes = Encode(request);
  if (!bytes.ok()) return bytes.status();

  grpc::ByteBuffer answer;
  grpc::Status status;
  {
    grpc::CompletionQueue queue;  // of its own: this thread does the polling
    const auto rpc = Stub(channel).PrepareUnaryCall(context->get(), method, *bytes, &queue);
    rpc->StartCall();
    rpc->Finish(&answer, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
  }
  if (!status.ok()) return FromGrpc(status);
  grpc::ProtoBufferReader source(&answer);
  if (!response.ParseFromZeroCopyStream(&source)) {
    return absl::InternalError(absl::StrCat("malformed reply to ", method));
  }
  return absl::OkStatus();
}

}  // namespace attnd::client
