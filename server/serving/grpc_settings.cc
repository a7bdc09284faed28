#include "server/serving/grpc_settings.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "grpcpp/resource_quota.h"
#include "server/serving/settings.h"

namespace attnd::server {
namespace {

// What gRPC reads from a connection at a time, at least: fewer calls of the system for each message. Measured in
// docs/performance.md, "Settings of the channel"; tests/e2e/settings_test.cc sees it in force.
constexpr int kReadBytes = 256 << 10;

}  // namespace

void Configure(const Options& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.limits.max_request_bytes));
  builder.SetMaxSendMessageSize(-1);
  // A compressed message's size says nothing of what it becomes, and tensors hardly shrink: refused.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  // Two servers on one port would each get some of the connections: refused too.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadBytes);
  builder.AddChannelArgument(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadBytes);
  // Bounds what has been received and not admitted yet. Beyond it gRPC drops whole connections, so calls should meet
  // the limit on those in flight first.
  grpc::ResourceQuota quota("attnd");
  quota.Resize(static_cast<std::size_t>(options.limits.max_inflight_bytes + options.limits.max_request_bytes));
  builder.SetResourceQuota(quota);
}

v1::Setting ReadBytesSetting() {
  return RequestedSetting("grpc_read_bytes", absl::StrCat("at least ", kReadBytes, " bytes a read"));
}

}  // namespace attnd::server
