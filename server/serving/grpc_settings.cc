#include "server/serving/grpc_settings.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/serving/settings.h"

namespace attnd::server {
namespace {

// The least that gRPC reads from a connection at a time, so that a message needs fewer system calls. Measured in
// docs/performance.md, "Settings of the channel"; tests/e2e/settings_test.cc checks that it is in force.
constexpr int kReadBytes = 256 << 10;

// Largest metadata of one call. If it is exceeded, gRPC ends the connection with all its calls, so it is far above what
// callers send by accident.
constexpr int kMetadataBytes = 256 << 10;

// Largest HTTP/2 frame.
constexpr int kFrameBytes = 1 << 20;

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<std::int64_t>(absl::ToInt64Milliseconds(duration), std::numeric_limits<int>::max()));
}

// docs/decisions/0016-how-connections-end.md says which of these settings gRPC obeys, and why we set them.
void SetTimes(const Options& options, grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  // For both sides: the server may ping idle clients, and they may ping the server.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(options.min_ping_interval));
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(options.handshake_time));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(options.max_connection_idle));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(options.max_connection_age));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(options.max_connection_age_grace));
}

}  // namespace

void Configure(const Options& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.limits.max_request_bytes));
  builder.SetMaxSendMessageSize(-1);
  // Refuse compressed messages: their size does not tell their memory, and compression hardly shrinks tensors.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadBytes);
  builder.AddChannelArgument(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytes);
  SetTimes(options, builder);
  // The client learns this limit when it connects, and holds back further calls.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(options.limits.max_connection_streams));
  if (!options.receive_ahead) {
    // Without its bandwidth estimate (BDP), gRPC leaves a call's window at HTTP/2's 64 KiB until it reads the call's
    // message. The estimate would also raise HTTP/2's frame size of 16 KiB, so set that here.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  }
}

v1::Setting ReadBytesSetting() {
  return RequestedSetting("grpc_read_bytes", absl::StrCat("at least ", kReadBytes, " bytes a read"));
}

}  // namespace attnd::server
