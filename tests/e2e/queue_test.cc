// More calls than can be computed in time: what their callers are told.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;
using testing::HasSubstr;

// Some 60 ms of one thread, and few bytes.
v1::ComputeAttentionRequest Long() {
  return ValidRequest({.batch = 1, .query_length = 8192, .key_length = 8192, .head_dim = 16});
}

v1::QueueUse QueueOf(TestServer& server) {
  v1::GetServerInfoResponse info;
  grpc::ClientContext context;
  EXPECT_TRUE(server.info().GetServerInfo(&context, {}, &info).ok());
  return info.queue();
}

class QueueTest : public testing::Test {
 protected:
  explicit QueueTest(absl::Duration max_queue_time = absl::Seconds(60)) {
    server::Options options = TestOptions();
    options.threads = 1;
    options.max_queue_time = max_queue_time;
    server_.emplace(options);
    // The server sees how long it takes, and so does the test, which does not count the first.
    v1::ComputeAttentionResponse response;
    EXPECT_TRUE(server_->Compute(long_, &response).ok());
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_TRUE(server_->Compute(long_, &response).ok());
    once_ = std::chrono::steady_clock::now() - begun;
  }

  // As many long calls at once, until the block ends.
  void Occupy(int calls) {
    for (int i = 0; i < calls; ++i) {
      occupants_.emplace_back([this] {
        v1::ComputeAttentionResponse response;
        const grpc::Status status = server_->Compute(long_, &response);
        EXPECT_TRUE(status.ok()) << status.error_message();
      });
    }
    EXPECT_TRUE(Becomes([&] { return QueueOf(*server_).waiting() >= calls - 3; }));
  }

  // Makes thirty long calls at once. At least one of them is served.
  std::vector<grpc::Status> RefusedOfThirty(std::chrono::system_clock::time_point deadline) {
    std::vector<grpc::Status> ended(30);
    std::atomic<int> hints{0};
    std::vector<std::thread> callers;
    for (grpc::Status& status : ended) {
      callers.emplace_back([&] {
        grpc::ClientContext context;
        context.set_deadline(deadline);
        v1::ComputeAttentionResponse response;
        status = server_->attention().ComputeAttention(&context, long_, &response);
        hints += static_cast<int>(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"));
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_THAT(ended, testing::Contains(testing::Property(&grpc::Status::ok, true)));
    std::erase_if(ended, [](const grpc::Status& s) { return s.error_code() != StatusCode::RESOURCE_EXHAUSTED; });
    EXPECT_EQ(QueueOf(*server_).refused(), static_cast<std::int64_t>(ended.size()));
    EXPECT_EQ(hints.load(), static_cast<int>(ended.size()));
    return ended;
  }

  ~QueueTest() override {
    for (std::thread& occupant : occupants_) occupant.join();
  }

  const v1::ComputeAttentionRequest long_ = Long();
  std::optional<TestServer> server_;
  std::chrono::nanoseconds once_{};  // what a long call takes
  std::vector<std::thread> occupants_;
};

class ImpatientQueueTest : public QueueTest {
 protected:
  ImpatientQueueTest() : QueueTest(absl::Milliseconds(1)) {}
};

// Thirty calls at once that take a sixth of their deadline at most each.
TEST_F(QueueTest, CallsThatWouldBeLateAreRefusedAndToldWhenToComeBack) {
  const std::vector<grpc::Status> refused = RefusedOfThirty(
      std::chrono::system_clock::now() + std::max(6 * once_, std::chrono::nanoseconds(std::chrono::milliseconds(300))));
  EXPECT_GE(refused.size(), 2U);
  for (const grpc::Status& status : refused) {
    const v1::ErrorDetail detail = DetailOf(status);
    EXPECT_EQ(detail.field(), "deadline");
    EXPECT_THAT(detail.expected(), HasSubstr("later than "));
    EXPECT_TRUE(detail.has_retry_delay());
  }
}

// One that is due before all of them need not wait for them.
TEST_F(QueueTest, ADeadlineOvertakes) {
  Occupy(12);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::ComputeAttentionResponse response;
  ASSERT_TRUE(server_->attention().ComputeAttention(&context, long_, &response).ok());
  EXPECT_GE(QueueOf(*server_).waiting(), 4);
}

TEST_F(QueueTest, SmallCallsAreAnsweredMeanwhile) {
  Occupy(8);
  const v1::ComputeAttentionRequest small = ValidRequest();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  v1::ComputeAttentionResponse response;
  const grpc::Status status = server_->attention().ComputeAttention(&context, small, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ExpectMatchesReference(small, response);
  EXPECT_GT(QueueOf(*server_).waiting(), 0) << "they were still waiting";
}

TEST_F(ImpatientQueueTest, WithoutADeadlineACallWaitsForMaxQueueTime) {
  const std::vector<grpc::Status> refused = RefusedOfThirty(std::chrono::system_clock::time_point::max());
  EXPECT_GE(refused.size(), 2U);
  for (const grpc::Status& status : refused) {
    EXPECT_EQ(DetailOf(status).field(), "queue");
    EXPECT_THAT(status.error_message(), HasSubstr("--max_queue_time"));
    EXPECT_TRUE(DetailOf(status).has_retry_delay());
  }
}

}  // namespace
}  // namespace attnd::e2e
