// A server that stops: what it has accepted is answered, within the time it is given.

#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "e2e_support.h"
#include "gtest/gtest.h"

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
    while (server.server().calls_in_flight() == 0 && !done_.HasBeenNotified()) std::this_thread::yield();
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

TEST(StopTest, AcceptedCallIsAnsweredAndNewOnesAreNot) {
  TestServer server(OneThread(absl::Seconds(600)));
  PendingCall accepted(server, {.batch = 1, .query_length = 4000, .key_length = 4000, .head_dim = 32});
  std::thread stop([&server] { EXPECT_EQ(server.server().Stop(), 0); });
  const grpc::Status& status = accepted.Wait();
  EXPECT_TRUE(status.ok()) << status.error_message();
  v1::ComputeAttentionResponse response;
  EXPECT_FALSE(server.Compute(ValidRequest(), &response).ok());
  stop.join();
}

TEST(StopTest, WhatIsLeftAfterTheDrainTimeIsCutOff) {
  TestServer server(OneThread(absl::ZeroDuration()));
  PendingCall accepted(server, {.batch = 8, .query_length = 16000, .key_length = 16000, .head_dim = 32});
  EXPECT_EQ(server.server().Stop(), 1);
  EXPECT_FALSE(accepted.Wait().ok());
}

// Health turns before the calls in flight are done; the process is alive as long as it answers at all.
TEST(StopTest, HealthSaysSoMeanwhile) {
  TestServer server(OneThread(absl::Seconds(600)));
  PendingCall accepted(server, {.batch = 1, .query_length = 16000, .key_length = 16000, .head_dim = 32});
  std::thread stop([&server] { server.server().Stop(); });
  Health attention = Health::kServing;
  while (attention == Health::kServing) attention = HealthOf(server.channel(), "attnd.v1.AttentionService");
  if (attention == Health::kNotServing) {  // and not that the server is gone already
    const Health liveness = HealthOf(server.channel(), "liveness");
    EXPECT_TRUE(liveness == Health::kServing || liveness == Health::kFailed);
  }
  EXPECT_TRUE(accepted.Wait().ok());
  stop.join();
}

}  // namespace
}  // namespace attnd::e2e
