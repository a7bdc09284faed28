// Calls that nobody waits for any more stop computing.

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "e2e_support.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

// Some hundred milliseconds of one core at the least.
v1::ComputeAttentionRequest LongRequest() {
  return ValidRequest({.batch = 1, .query_length = 6000, .key_length = 6000, .head_dim = 64});
}

server::Options OneThread() {
  server::Options options = TestOptions();
  options.threads = 1;
  return options;
}

TEST(CancelTest, DeadlineIsReported) {
  TestServer server(OneThread());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
  v1::ComputeAttentionResponse response;
  EXPECT_EQ(server.attention().ComputeAttention(&context, LongRequest(), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());
}

// Forty long calls, all cancelled at once after the first has begun: the server, which would need their whole compute
// time otherwise, stops as soon as the items being computed are done, and within its drain time no call is cut.
TEST(CancelTest, CancelledCallsEndAndReleaseTheirMemory) {
  server::Options options = OneThread();
  const v1::ComputeAttentionRequest request = LongRequest();
  // Room for one such call at a time and no more, in the half that one peer can have: q, k, v, output, packed k and v,
  // and as much as one of them for what else its work takes.
  options.limits.max_inflight_bytes = static_cast<std::int64_t>(2 * 7 * request.q().size());
  options.limits.max_request_bytes = options.limits.max_inflight_bytes / 2;
  TestServer server(options);
  for (int i = 0; i < 5; ++i) {
    grpc::ClientContext context;
    v1::ComputeAttentionResponse response;
    grpc::Status status;
    absl::Notification done;
    server.attention().async()->ComputeAttention(&context, &request, &response, [&](grpc::Status s) {
      status = std::move(s);
      done.Notify();
    });
    context.TryCancel();
    done.WaitForNotification();
    EXPECT_TRUE(status.error_code() == grpc::StatusCode::CANCELLED || status.ok()) << status.error_message();
  }
  // A cancelled call's memory comes back without its having been computed to the end; until then the next is refused.
  v1::ComputeAttentionResponse response;
  grpc::Status status;
  const auto is_let_in = [&] {
    status = server.Compute(request, &response);
    return status.ok() || !absl::StrContains(status.error_message(), "in flight");
  };
  EXPECT_TRUE(test::Becomes(is_let_in, test::Patience()));
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST(CancelTest, ClientsThatVanishHarmNobody) {
  TestServer server;
  const v1::ComputeAttentionRequest good = ValidRequest();
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server.Compute(good, &expected).ok());
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext context;
    v1::ComputeAttentionResponse response;
    const v1::ComputeAttentionRequest request = LongRequest();
    absl::Notification done;
    auto channel = NewChannel(server.address());
    auto stub = v1::AttentionService::NewStub(channel);
    stub->async()->ComputeAttention(&context, &request, &response, [&](const grpc::Status&) { done.Notify(); });
    if (i % 2 == 0) context.TryCancel();
    stub.reset();
    channel.reset();
    context.TryCancel();
    done.WaitForNotification();
    v1::ComputeAttentionResponse again;
    ASSERT_TRUE(server.Compute(good, &again).ok());
    EXPECT_EQ(again.output(), expected.output());
  }
}

}  // namespace
}  // namespace attnd::e2e
