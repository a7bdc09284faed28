#include "server/serving/grpc_settings.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/serving/settings.h"

namespace attnd::server {
namespace {

// What gRPC reads from a connection at a time, at least: fewer calls of the system for each message. Measured in
// docs/performance.md, "Settings of the channel"; tests/e2e/settings_test.cc sees it in force.
constexpr int kReadBytes = 256 << 10;

// Metadata of one call. gRPC ends the connection with all its calls where this is exceeded, so it is far above what
// callers send by accident.
constexpr int kMetadataBytes = 256 << 10;

// Of what one HTTP/2 frame may carry.
constexpr int kFrameBytes = 1 << 20;

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<std::int64_t>(absl::ToInt64Milliseconds(duration), std::numeric_limits<int>::max()));
}

// docs/decisions/0016-how-connections-end.md says which of gRPC's settings are obeyed, and why these.
void SetTimes(const Options& options, grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  // For both sides: the server pings idle clients, and these may ping the server.
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
  // A compressed message's size says nothing of what it becomes, and tensors hardly shrink: refused.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadBytes);
  builder.AddChannelArgument(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytes);
  SetTimes(options, builder);
  // A client learns of it when it connects, and lets further calls wait on its side.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(options.limits.max_connection_streams));
  if (!options.receive_ahead) {
    // Without its estimate gRPC leaves a call's window at HTTP/2's 64 KiB until the call's message is read. Frames may
    // be larger than HTTP/2's 16 KiB all the same, which the estimate would see to.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  }
}

v1::Setting ReadBytesSetting() {
  return RequestedSetting("grpc_read_bytes", absl::StrCat("at least ", kReadBytes, " bytes a read"));
}

}  // namespace attnd::server
