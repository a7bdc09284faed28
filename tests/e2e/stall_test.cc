// Results that nobody takes, on a real server: what holds them is ended, and gives everything back.

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "server/attention/stream.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"

namespace attnd::e2e {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// A small request for a result of 8 MiB: more than connections and their flow control hold.
v1::ComputeAttentionRequest LargeResult() {
  v1::ComputeAttentionRequest request = ValidRequest({.batch = 1, .query_length = 512, .key_length = 1, .head_dim = 1});
  request.set_value_head_dim(2048);
  request.set_v(RandomFloats(kHeads * 2048, 1));
  return request;
}
constexpr std::int64_t kLargeResultBytes = kHeads * 512 * 2048 * 4;

// Ends what stalls at once.
server::Options Impatient() {
  server::Options options = TestOptions();
  options.stall = absl::Milliseconds(100);
  options.min_rate = std::int64_t{1} << 40;
  return options;
}

// What the server logs while this lives.
class Log {
 public:
  Log() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_, true)));
  }
  ~Log() { spdlog::set_default_logger(before_); }
  // Once the server is gone.
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  const std::shared_ptr<spdlog::logger> before_;
};

template <typename Condition>
bool Await(Condition condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!condition() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(2));
  return condition();
}

bool AwaitNothingHeld(TestServer& server) {
  return Await([&] { return server.server().inflight_bytes() == 0 && server.server().calls_in_flight() == 0; });
}

std::int64_t StalledWrites(TestServer& server) { return server.server().counters().stalled_writes.load(); }

// A channel whose transport takes 64 KiB of each stream that nobody reads. Left to itself it takes more, as it finds
// the connection to be fast.
std::shared_ptr<grpc::Channel> ChannelOfSmallWindows(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return NewChannel(address, arguments);
}

// Streams and calls that send and never read.
class NeverRead {
 public:
  explicit NeverRead(const std::string& address)
      : channel_(ChannelOfSmallWindows(address)), stub_(v1::AttentionService::NewStub(channel_)), generic_(channel_) {}
  ~NeverRead() {
    context_.TryCancel();
    for (const auto& call : calls_) call->context.TryCancel();
    if (writer_.joinable()) writer_.join();
    if (stream_ != nullptr) StreamStatus();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // As many pieces as the server takes of this many.
  void Stream(std::uint64_t pieces) {
    stream_ = stub_->StreamAttention(&context_);
    writer_ = std::thread([this, pieces] {
      for (std::uint64_t id = 0; id < pieces; ++id) {
        if (!stream_->Write(PieceOf(id, LargeResult()))) return;
      }
    });
  }

  void Unary() { Unary("/attnd.v1.AttentionService/ComputeAttention", LargeResult()); }

  template <typename Request>
  void Unary(const char* method, const Request& request) {
    calls_.push_back(std::make_unique<Call>());
    Call& call = *calls_.back();
    call.stream = generic_.PrepareCall(&call.context, method, &queue_);
    call.stream->StartCall(&call);
    AwaitTag();
    const grpc::Slice message(request.SerializeAsString());
    call.stream->WriteLast(grpc::ByteBuffer(&message, 1), grpc::WriteOptions(), &call);
    AwaitTag();
  }

  // How the last call has ended. gRPC tells only once what has come is read.
  grpc::Status UnaryStatus() {
    grpc::Status status;
    grpc::ByteBuffer answer;
    calls_.back()->stream->Read(&answer, nullptr);
    AwaitTag();
    calls_.back()->stream->Finish(&status, nullptr);
    AwaitTag();
    return status;
  }

  // Reads the answers of the stream that have not been read.
  std::int64_t ReadStream() {
    writer_.join();
    stream_->WritesDone();
    std::int64_t read = 0;
    v1::StreamAttentionResponse answer;
    while (stream_->Read(&answer)) {
      EXPECT_EQ(answer.code(), 0) << answer.message();
      ++read;
    }
    return read;
  }
  grpc::Status StreamStatus() {
    v1::StreamAttentionResponse answer;
    while (stream_->Read(&answer)) {
    }
    const grpc::Status status = stream_->Finish();
    if (writer_.joinable()) writer_.join();
    stream_.reset();
    return status;
  }

 private:
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
  };
  void AwaitTag() {
    void* tag = nullptr;
    bool ok = false;
    ASSERT_TRUE(queue_.Next(&tag, &ok));
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::AttentionService::Stub> stub_;
  grpc::GenericStub generic_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>> stream_;
  std::thread writer_;
  std::vector<std::unique_ptr<Call>> calls_;
};

void ExpectStillServes(TestServer& server) {
  const v1::ComputeAttentionRequest request = ValidRequest();
  v1::ComputeAttentionResponse response;
  ASSERT_TRUE(server.Compute(request, &response).ok());
  ExpectMatchesReference(request, response);
}

TEST(StallTest, AStreamThatIsNeverReadHoldsItsWindowAndNoMore) {
  server::Options options = TestOptions();
  options.stall = absl::ZeroDuration();
  TestServer server(options);
  NeverRead reader(server.address());
  reader.Stream(12);
  // One answer is being written; the next piece has no room beside it.
  ASSERT_TRUE(Await([&] { return server.server().inflight_bytes() > kLargeResultBytes / 2; }));
  for (int i = 0; i < 50; ++i) {
    ExpectStillServes(server);
    EXPECT_LE(server.server().inflight_bytes(), server::kStreamWindowBytes + kLargeResultBytes);
  }
  // Without a limit the answers are there still.
  EXPECT_GT(server.server().inflight_bytes(), kLargeResultBytes / 2);
  EXPECT_EQ(StalledWrites(server), 0);
  EXPECT_EQ(reader.ReadStream(), 12);
  EXPECT_TRUE(AwaitNothingHeld(server));
}

TEST(StallTest, AStreamThatIsNeverReadIsEnded) {
  Log log;
  {
    TestServer server(Impatient());
    NeverRead reader(server.address());
    reader.Stream(12);
    EXPECT_TRUE(Await([&] { return StalledWrites(server) == 1; }));
    EXPECT_TRUE(AwaitNothingHeld(server)) << server.server().inflight_bytes();
    const grpc::Status status = reader.StreamStatus();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("--stall_seconds"));
    ExpectStillServes(server);
    EXPECT_EQ(StalledWrites(server), 1);
  }
  EXPECT_THAT(log.text(), HasSubstr("a call of ipv4:127.0.0.1:"));
  EXPECT_THAT(log.text(), HasSubstr("was not taken within 100ms"));
}

TEST(StallTest, CallsThatAreNeverReadAreEnded) {
  Log log;
  {
    TestServer server(Impatient());
    NeverRead reader(server.address());
    constexpr int kCalls = 8;
    for (int i = 0; i < kCalls; ++i) reader.Unary();
    EXPECT_TRUE(Await([&] { return StalledWrites(server) == kCalls; })) << StalledWrites(server);
    EXPECT_TRUE(AwaitNothingHeld(server)) << server.server().inflight_bytes();
    const grpc::Status status = reader.UnaryStatus();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << status.error_message();
    ExpectStillServes(server);
  }
  EXPECT_THAT(log.text(), HasSubstr("--stall_seconds"));
}

TEST(StallTest, ModelCallsThatAreNeverReadAreEnded) {
  TestServer server(Impatient());
  NeverRead reader(server.address());
  v1::GetBiasRequest window;
  window.set_model("book");
  window.set_query_count(1024);
  window.set_key_count(1024);
  reader.Unary("/attnd.v1.ModelService/GetBias", window);
  EXPECT_TRUE(Await([&] { return StalledWrites(server) == 1; })) << StalledWrites(server);
  EXPECT_TRUE(AwaitNothingHeld(server)) << server.server().inflight_bytes();
  EXPECT_EQ(reader.UnaryStatus().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ExpectStillServes(server);
}

TEST(StallTest, WithoutALimitCallsWaitForTheirReader) {
  server::Options options = Impatient();
  options.stall = absl::ZeroDuration();
  TestServer server(options);
  {
    NeverRead reader(server.address());
    constexpr int kCalls = 8;
    for (int i = 0; i < kCalls; ++i) reader.Unary();
    ASSERT_TRUE(Await([&] { return server.server().inflight_bytes() > (kCalls - 1) * kLargeResultBytes; }));
    absl::SleepFor(10 * Impatient().stall);
    EXPECT_GT(server.server().inflight_bytes(), (kCalls - 1) * kLargeResultBytes);
    EXPECT_EQ(StalledWrites(server), 0);
  }
  EXPECT_TRUE(AwaitNothingHeld(server)) << "their callers have cancelled them";
}

// Longer than the patience, but at more than the rate.
TEST(StallTest, ASlowReaderIsNotEnded) {
  server::Options options = Impatient();
  options.min_rate = 64 << 10;  // two minutes for an answer
  TestServer server(options);
  NeverRead reader(server.address());
  reader.Stream(5);
  absl::SleepFor(10 * options.stall);
  EXPECT_EQ(reader.ReadStream(), 5);
  EXPECT_EQ(StalledWrites(server), 0);
}

// Small results too wait behind large ones that are not read.
TEST(StallTest, CallsThatAreReadInTimeAreNotEnded) {
  server::Options options = TestOptions();
  options.stall = kPatience;
  TestServer server(options);
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        v1::ComputeAttentionResponse response;
        EXPECT_TRUE(server.Compute(i % 10 == 0 ? LargeResult() : ValidRequest(), &response).ok());
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(StalledWrites(server), 0);
  EXPECT_TRUE(AwaitNothingHeld(server));
}

}  // namespace
}  // namespace attnd::e2e
