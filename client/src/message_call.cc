#include "client/src/message_call.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <limits>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/src/context.h"
#include "client/src/status.h"
#include "client/src/unary.h"

namespace attnd::client {
namespace {

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
  absl::StatusOr<grpc::ByteBuffer> bytes = Encode(request);
  if (!bytes.ok()) return bytes.status();

  grpc::ByteBuffer answer;
  const grpc::Status status = CallUnary(channel, context->get(), method, &*bytes, &answer);
  if (!status.ok()) return FromGrpc(status);
  grpc::ProtoBufferReader source(&answer);
  if (!response.ParseFromZeroCopyStream(&source)) {
    return absl::InternalError(absl::StrCat("malformed reply to ", method));
  }
  return absl::OkStatus();
}

}  // namespace attnd::client
