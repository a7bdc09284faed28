// What Configure does to a gRPC server, seen from outside. That reads are as large as it asks for is tested in
// tests/e2e/settings_test.cc, with the process's system calls.

#include "server/serving/grpc_settings.h"

#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attnd/v1/server.grpc.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/unknown_field_set.h"
#include "grpc/grpc.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/serving/info_service.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;

// gRPC stays up until the process ends: where its last user goes just after a large write, it waits ten seconds for a
// poller of its own.
[[maybe_unused]] const bool kGrpcIsUp = (grpc_init(), true);

// Without the zeros of what would follow the machine.
Options FittedOptions() {
  Options options;
  options.limits = Limits();
  return options;
}

// A server with InfoService alone, whose answer is of about `answer_bytes`.
class ConfiguredServer {
 public:
  ConfiguredServer(const Options& options, const std::string& address, std::size_t answer_bytes = 0)
      : service_(Answer(answer_bytes)) {
    grpc::ServerBuilder builder;
    Configure(options, builder);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~ConfiguredServer() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  bool listens() const { return server_ != nullptr && port_ != 0; }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  // Sends a request of exactly `bytes` bytes, 3 or more than 4.
  grpc::Status Call(std::size_t bytes, grpc_compression_algorithm compression = GRPC_COMPRESS_NONE) {
    v1::GetServerInfoRequest request;
    // A field that the message does not know; its tag and length take up the rest.
    std::string padding(bytes, 'x');
    do {
      google::protobuf::UnknownFieldSet& fields = *request.GetReflection()->MutableUnknownFields(&request);
      fields.Clear();
      padding.pop_back();
      fields.AddLengthDelimited(1, padding);
    } while (request.ByteSizeLong() > bytes);
    EXPECT_EQ(request.ByteSizeLong(), bytes);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    context.set_compression_algorithm(compression);
    return v1::ServerService::NewStub(
               grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), arguments))
        ->GetServerInfo(&context, request, &answer_);
  }
  const v1::GetServerInfoResponse& answer() const { return answer_; }

 private:
  static v1::GetServerInfoResponse Answer(std::size_t bytes) {
    v1::GetServerInfoResponse answer;
    answer.set_version(std::string(bytes, 'v'));
    return answer;
  }

  InfoService service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  v1::GetServerInfoResponse answer_;
};

TEST(GrpcSettingsTest, RequestsUpToTheLimitAndNoByteMore) {
  for (const std::int64_t limit : {std::int64_t{1000}, std::int64_t{8} << 20}) {  // gRPC's own is 4 MiB
    Options options = FittedOptions();
    options.limits.max_request_bytes = limit;
    ConfiguredServer server(options, "127.0.0.1:0");
    ASSERT_TRUE(server.listens());
    const auto bytes = static_cast<std::size_t>(limit);
    EXPECT_EQ(server.Call(bytes).error_code(), StatusCode::OK) << limit;
    const grpc::Status refused = server.Call(bytes + 1);
    EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED) << limit;
    EXPECT_THAT(refused.error_message(), testing::HasSubstr(std::to_string(limit)));
  }
}

TEST(GrpcSettingsTest, AnswersOfAnySize) {
  constexpr std::size_t kAnswer = std::size_t{16} << 20;
  ConfiguredServer server(FittedOptions(), "127.0.0.1:0", kAnswer);
  ASSERT_TRUE(server.listens());
  const grpc::Status status = server.Call(10);
  EXPECT_EQ(status.error_code(), StatusCode::OK) << status.error_message();
  EXPECT_EQ(server.answer().version().size(), kAnswer);
}

TEST(GrpcSettingsTest, CompressedRequestsAreRefused) {
  ConfiguredServer server(FittedOptions(), "127.0.0.1:0");
  ASSERT_TRUE(server.listens());
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    EXPECT_EQ(server.Call(10000, algorithm).error_code(), StatusCode::UNIMPLEMENTED);
  }
  EXPECT_EQ(server.Call(10000).error_code(), StatusCode::OK);
}

// The channel arguments that Configure sets, numbers alone.
std::map<std::string, int> ArgumentsOf(const Options& options) {
  class Look final : public grpc::ServerBuilderOption {
   public:
    explicit Look(std::map<std::string, int>& found) : found_(found) {}
    void UpdateArguments(grpc::ChannelArguments* arguments) override {
      const grpc_channel_args all = arguments->c_channel_args();
      for (std::size_t i = 0; i < all.num_args; ++i) {
        if (all.args[i].type == GRPC_ARG_INTEGER) found_[all.args[i].key] = all.args[i].value.integer;
      }
    }
    void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*) override {}

   private:
    std::map<std::string, int>& found_;
  };
  std::map<std::string, int> found;
  grpc::ServerBuilder builder;
  Configure(options, builder);
  builder.SetOption(std::make_unique<Look>(found));  // after those of Configure
  InfoService service{{}};
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  EXPECT_NE(server, nullptr);
  return found;
}

TEST(GrpcSettingsTest, EveryTimeIsTheArgumentThatItIsMeantFor) {
  const struct {
    const char* argument;
    absl::Duration Options::*time;
  } kTimes[] = {{GRPC_ARG_KEEPALIVE_TIME_MS, &Options::keepalive_time},
                {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, &Options::keepalive_timeout},
                {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, &Options::min_ping_interval},
                {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, &Options::handshake_time},
                {GRPC_ARG_MAX_CONNECTION_IDLE_MS, &Options::max_connection_idle},
                {GRPC_ARG_MAX_CONNECTION_AGE_MS, &Options::max_connection_age},
                {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, &Options::max_connection_age_grace}};
  Options options = FittedOptions();
  int seconds = 1000;
  for (const auto& c : kTimes) options.*c.time = absl::Seconds(++seconds);
  std::map<std::string, int> arguments = ArgumentsOf(options);
  seconds = 1000;
  for (const auto& c : kTimes) EXPECT_EQ(arguments[c.argument], 1000 * ++seconds) << c.argument;
  for (const auto& c : kTimes) {
    for (const auto& [time, milliseconds] :
         {std::pair{absl::InfiniteDuration(), INT_MAX}, {absl::Milliseconds(1), 1}, {absl::Hours(24 * 365), INT_MAX}}) {
      Options one = FittedOptions();
      one.*c.time = time;
      EXPECT_EQ(ArgumentsOf(one)[c.argument], milliseconds) << c.argument;
    }
  }
}

TEST(GrpcSettingsTest, OtherArguments) {
  Options options = FittedOptions();
  options.limits.max_connection_streams = 123;
  for (const bool receive_ahead : {true, false}) {
    options.receive_ahead = receive_ahead;
    std::map<std::string, int> arguments = ArgumentsOf(options);
    EXPECT_EQ(arguments[GRPC_ARG_MAX_CONCURRENT_STREAMS], 123);
    EXPECT_EQ(arguments[GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS], 1);
    EXPECT_EQ(arguments[GRPC_ARG_TCP_READ_CHUNK_SIZE], 256 << 10);
    EXPECT_EQ(arguments[GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE], 256 << 10);
    EXPECT_EQ(arguments[GRPC_ARG_MAX_METADATA_SIZE], 256 << 10);
    EXPECT_EQ(arguments.count(GRPC_ARG_HTTP2_BDP_PROBE), receive_ahead ? 0U : 1U);
    EXPECT_EQ(arguments[GRPC_ARG_HTTP2_BDP_PROBE], 0);
    EXPECT_EQ(arguments.count(GRPC_ARG_HTTP2_MAX_FRAME_SIZE), receive_ahead ? 0U : 1U);
    if (!receive_ahead) {
      EXPECT_EQ(arguments[GRPC_ARG_HTTP2_MAX_FRAME_SIZE], 1 << 20);
    }
  }
}

TEST(GrpcSettingsTest, ReadSizeIsReportedAsAskedFor) {
  const v1::Setting setting = ReadBytesSetting();
  EXPECT_EQ(setting.name(), "grpc_read_bytes");
  EXPECT_EQ(setting.state(), v1::SETTING_STATE_REQUESTED) << "a process cannot see whether gRPC obeys";
  EXPECT_THAT(setting.detail(), testing::HasSubstr(" bytes"));
}

}  // namespace
}  // namespace attnd::server
