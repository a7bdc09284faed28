// A server that stops: what it has accepted is answered, within the time it is given.

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "relay.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

// A call in the background.
class PendingCall {
 public:
  PendingCall(TestServer& server, const Shape& shape) : request_(ValidRequest(shape)) {
    server.attention().async()->ComputeAttention(&context_, &request_, &response_, [this](grpc::Status status) {
      status_ = std::move(status);
      done_.Notify();
    });
    EXPECT_TRUE(test::Becomes([&] { return server.server().calls_in_flight() > 0 || done_.HasBeenNotified(); }));
  }

  const grpc::Status& Wait() {
    done_.WaitForNotification();
    return status_;
  }
  const v1::ComputeAttentionRequest& request() const { return request_; }
  const v1::ComputeAttentionResponse& response() const { return response_; }

 private:
  const v1::ComputeAttentionRequest request_;
  grpc::ClientContext context_;
  v1::ComputeAttentionResponse response_;
  grpc::Status status_;
  absl::Notification done_;
};

server::Options OneThread(absl::Duration drain) {
  server::Options options = TestOptions();
  options.threads = 1;
  options.drain = drain;
  return options;
}

// HTTP/2 by hand: a header field that no table has, and a frame.
std::string Field(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
}
std::string Frame(char type, char flags, char stream, const std::string& payload) {
  return std::string("\0\0", 2) + static_cast<char>(payload.size()) + type + flags + std::string("\0\0\0", 3) + stream +
         payload;
}

// Such a call reaches no service, and its connection stays open.
TEST(StopTest, ACallThatGrpcDropsHoldsNoStop) {
  TestServer server(OneThread(absl::Seconds(600)));
  const int connection = ConnectTo(server.address());
  ASSERT_GE(connection, 0);
  constexpr char kSettings = 4, kHeaders = 1, kEndOfStreamAndHeaders = 5;
  const std::string no_path = Field(":method", "POST") + Field(":scheme", "http") + Field(":authority", "x") +
                              Field("content-type", "application/grpc");
  const std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "") +
                            Frame(kHeaders, kEndOfStreamAndHeaders, 1, no_path);
  ASSERT_EQ(send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());  // after it the frames have most likely been read
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(server.server().Stop().cut_off, 0);
  // gRPC by itself waits 20 s for the connection's answer.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
  close(connection);
}

TEST(StopTest, AcceptedCallIsAnsweredAndNewOnesAreNot) {
  TestServer server(OneThread(absl::Seconds(600)));
  PendingCall accepted(server, {.batch = 1, .query_length = 4000, .key_length = 4000, .head_dim = 32});
  std::thread stop([&server] { EXPECT_EQ(server.server().Stop().cut_off, 0); });
  const grpc::Status& status = accepted.Wait();
  EXPECT_TRUE(status.ok()) << status.error_message();
  stop.join();  // which may begin as late as the accepted call ends
  v1::ComputeAttentionResponse response;
  EXPECT_FALSE(server.Compute(ValidRequest(), &response).ok());
}

TEST(StopTest, WhatIsLeftAfterTheDrainTimeIsCutOff) {
  TestServer server(OneThread(absl::ZeroDuration()));
  PendingCall accepted(server, {.batch = 8, .query_length = 16000, .key_length = 16000, .head_dim = 32});
  EXPECT_EQ(server.server().Stop().cut_off, 1);
  EXPECT_FALSE(accepted.Wait().ok());
}

// Health turns before the calls in flight are done; the process is alive as long as it answers at all.
TEST(StopTest, HealthSaysSoMeanwhile) {
  TestServer server(OneThread(absl::Seconds(600)));
  // Its answer is small, as gRPC may cut off a large one (docs/operations.md).
  PendingCall accepted(server, {.batch = 1, .query_length = 1000, .key_length = 140'000, .head_dim = 8});
  std::thread stop([&server] { server.server().Stop(); });
  Health attention = Health::kServing;
  EXPECT_TRUE(test::Becomes([&] {
    attention = HealthOf(server.channel(), "attnd.v1.AttentionService");
    return attention != Health::kServing;
  }));
  if (attention == Health::kNotServing) {  // and not that the server is gone already
    const Health liveness = HealthOf(server.channel(), "liveness");
    EXPECT_TRUE(liveness == Health::kServing || liveness == Health::kFailed);
  }
  EXPECT_TRUE(accepted.Wait().ok());
  stop.join();
}

TEST(StopTest, AStreamWithoutPiecesIsEndedAndHoldsNothingUp) {
  TestServer server(OneThread(absl::Hours(24)));
  grpc::ClientContext context;
  const auto stream = server.attention().StreamAttention(&context);
  v1::StreamAttentionRequest piece;
  piece.mutable_call()->set_model("no-such");
  ASSERT_TRUE(stream->Write(piece));
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(server.server().Stop().cut_off, 0);
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// A job is not over while its client says that more of it follows, however long that takes.
TEST(StopTest, AStreamThatExpectsMoreIsServedToItsEnd) {
  TestServer server(OneThread(absl::Hours(24)));
  grpc::ClientContext context;
  const auto stream = server.attention().StreamAttention(&context);
  v1::StreamAttentionRequest piece = PieceOf(1, ValidRequest());
  piece.set_more(true);
  ASSERT_TRUE(stream->Write(piece));
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.code(), 0) << answer.message();
  EXPECT_FALSE(answer.going_away());
  std::thread stop([&server] { EXPECT_EQ(server.server().Stop().cut_off, 0); });
  // Longer than a stream may be quiet, and than a connection without calls is kept.
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  piece = PieceOf(2, ValidRequest());
  EXPECT_TRUE(stream->Write(piece));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.code(), 0) << answer.message();
  EXPECT_TRUE(answer.going_away());
  stop.join();  // the stream has not ended its side: it is quiet now
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// Callers without pause over two servers, of which one stops while it has a long call: they turn to the other. Only
// calls that they had sent before they knew of the stop fail, at most one a caller, and the server counts these.
TEST(StopTest, CallersTurnElsewhereAtOnce) {
  TestServer stays;
  TestServer stops(OneThread(absl::Hours(24)));
  const std::string both = absl::StrCat("ipv4:", stays.address(), ",", stops.address());
  // Its answer is small, as gRPC may cut off a large one (docs/operations.md).
  PendingCall accepted(stops, {.batch = 1, .query_length = 1000, .key_length = 140'000, .head_dim = 8});
  constexpr int kCallers = 8;
  std::atomic<bool> over{false};
  std::atomic<int> failed{0};
  std::atomic<int> answered{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      grpc::ChannelArguments arguments;
      arguments.SetLoadBalancingPolicyName("round_robin");
      const auto stub = v1::AttentionService::NewStub(NewChannel(both, arguments));
      const v1::ComputeAttentionRequest request = ValidRequest();
      while (!over.load()) {
        grpc::ClientContext context;
        v1::ComputeAttentionResponse response;
        const grpc::Status status = stub->ComputeAttention(&context, request, &response);
        ++(status.ok() ? answered : failed);
        if (status.ok()) continue;
        EXPECT_THAT(status.error_code(), testing::AnyOf(grpc::StatusCode::CANCELLED, grpc::StatusCode::UNAVAILABLE))
            << status.error_message();
      }
    });
  }
  EXPECT_TRUE(test::Becomes([&] { return answered.load() >= 100; }, test::Patience()));
  const server::Stopped stopped = stops.server().Stop();
  EXPECT_TRUE(accepted.Wait().ok()) << accepted.Wait().error_message();
  EXPECT_EQ(stopped.cut_off, 0);
  const int before = answered.load();
  EXPECT_TRUE(test::Becomes([&] { return answered.load() >= before + 100; }, test::Patience()));
  over.store(true);
  for (std::thread& caller : callers) caller.join();
  EXPECT_LE(failed.load(), 2 * kCallers);
  EXPECT_LE(stopped.not_begun, failed.load());
}

// The client reads of the stop only with its next call: it has no thread of its own that looks.
TEST(StopTest, AnIdleConnectionHoldsNothingUp) {
  TestServer server(OneThread(absl::Hours(24)));
  Relay relay(server.address());
  EXPECT_EQ(HealthOf(NewChannel(relay.address()), ""), Health::kServing);
  const auto channel = NewChannel(relay.address());
  EXPECT_EQ(HealthOf(channel, ""), Health::kServing);
  relay.FallSilent();
  EXPECT_EQ(server.server().Stop().cut_off, 0);
}

}  // namespace
}  // namespace attnd::e2e
