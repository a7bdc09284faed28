#include "grpc_calls.h"

#include <future>

#include "google/protobuf/unknown_field_set.h"
#include "grpcpp/generic/generic_stub.h"

namespace attnd::test {

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     grpc::ClientContext& context, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply) {
  std::promise<grpc::Status> ended;
  grpc::GenericStub(channel).UnaryCall(&context, method, grpc::StubOptions(), &request, reply,
                                       [&ended](const grpc::Status& status) { ended.set_value(status); });
  return ended.get_future().get();
}

absl::StatusOr<std::int64_t> ServingStatusOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                                             grpc::ClientContext& context) {
  // HealthCheckRequest {string service = 1}, HealthCheckResponse {ServingStatus status = 1}.
  google::protobuf::UnknownFieldSet fields;
  fields.AddLengthDelimited(1, service);
  std::string bytes;
  fields.SerializeToString(&bytes);
  const grpc::Slice slice(bytes);
  grpc::ByteBuffer reply;
  const grpc::Status status =
      RawCall(channel, "/grpc.health.v1.Health/Check", context, grpc::ByteBuffer(&slice, 1), &reply);
  if (!status.ok()) return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  grpc::Slice flat;
  if (!reply.DumpToSingleSlice(&flat).ok() || !fields.ParseFromArray(flat.begin(), static_cast<int>(flat.size())) ||
      fields.field_count() != 1) {
    return absl::DataLossError("not a HealthCheckResponse");
  }
  return static_cast<std::int64_t>(fields.field(0).varint());
}

}  // namespace attnd::test
