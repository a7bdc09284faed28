// ComputeAttention alone; StreamAttention is tested in stream_test.cc.

#include "server/attention/service.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attention/attention_server.h"
#include "gmock/gmock.h"
#include "google/protobuf/unknown_field_set.h"
#include "grpc_calls.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

// A call in the background.
class PendingCall {
 public:
  PendingCall(AttentionServer& server, const v1::ComputeAttentionRequest& request,
              std::chrono::system_clock::time_point deadline = Patience())
      : request_(request) {
    context_.set_deadline(deadline);
    server.stub->async()->ComputeAttention(&context_, &request_, &response_, [this](grpc::Status status) {
      status_ = std::move(status);
      ended_.Notify();
    });
  }
  ~PendingCall() { Wait(); }

  void Cancel() { context_.TryCancel(); }
  // gRPC calls back by the deadline at the latest, and soon after a cancellation.
  const grpc::Status& Wait() {
    if (!ended_.WaitForNotificationWithTimeout(2 * kPatience)) {
      ADD_FAILURE() << "the call does not end";
      Cancel();
      ended_.WaitForNotification();
    }
    return status_;
  }
  const v1::ComputeAttentionResponse& response() const { return response_; }

 private:
  const v1::ComputeAttentionRequest request_;
  grpc::ClientContext context_;
  v1::ComputeAttentionResponse response_;
  grpc::Status status_;
  absl::Notification ended_;
};

// Sends bytes as they are.
grpc::Status SendRaw(AttentionServer& server, const std::string& bytes, grpc::ByteBuffer* reply = nullptr) {
  const grpc::Slice slice(bytes);
  grpc::ByteBuffer ignored;
  grpc::ClientContext context;
  context.set_deadline(Patience());
  return test::RawCall(server.channel, "/attnd.v1.AttentionService/ComputeAttention", context,
                       grpc::ByteBuffer(&slice, 1), reply == nullptr ? &ignored : reply);
}

TEST(ServiceTest, AnswersWithWhatTheEngineComputes) {
  AttentionServer server;
  for (const CallSizes& sizes : {CallSizes(), kLarge}) {
    TestCall call(sizes);
    call.header.set_return_log_sum_exp(true);
    PendingCall pending(server, call.Message());
    ASSERT_TRUE(pending.Wait().ok()) << pending.Wait().error_message();
    const v1::ComputeAttentionResponse& response = pending.response();
    const model::Model& model = **server.registry.Find(kModel);
    EXPECT_EQ(response.version(), model.version());
    EXPECT_EQ(response.content_hash(), model.content_hash());
    EXPECT_EQ(response.dtype(), v1::DTYPE_FP32);
    ExpectIsTheFormula(call, TestTable(false), response.output(), response.log_sum_exp());
    server.ExpectIdle();
  }
}

TEST(ServiceTest, AnswersInOrderOfFieldNumbers) {
  AttentionServer server;
  TestCall call;
  call.header.set_return_log_sum_exp(true);
  grpc::ByteBuffer reply;
  ASSERT_TRUE(SendRaw(server, call.Message().SerializeAsString(), &reply).ok());
  grpc::Slice flat;
  ASSERT_TRUE(reply.DumpToSingleSlice(&flat).ok());
  google::protobuf::UnknownFieldSet fields;
  ASSERT_TRUE(fields.ParseFromArray(flat.begin(), static_cast<int>(flat.size())));
  std::vector<int> numbers;
  for (int i = 0; i < fields.field_count(); ++i) numbers.push_back(fields.field(i).number());
  EXPECT_THAT(numbers, testing::ElementsAre(1, 2, 3, 4, 5, 100, 101));
}

TEST(ServiceTest, AnswerOfTheLeastSize) {
  AttentionServer server;
  TestCall call({.batch = 2});
  for (int i = 0; i < 2; ++i) call.header.add_key_lengths(0);
  PendingCall pending(server, call.Message());
  ASSERT_TRUE(pending.Wait().ok()) << pending.Wait().error_message();
  EXPECT_EQ(pending.response().output(), std::string(2 * kHeads * 5 * 4 * sizeof(float), '\0'));
  server.ExpectIdle();
}

TEST(ServiceTest, RefusalsHaveTheirCodeAndLeaveTheGate) {
  Limits limits;
  limits.max_result_bytes = 1 << 20;
  limits.max_inflight_bytes = 1 << 20;
  AttentionServer server(limits);
  const struct {
    std::function<void(v1::ComputeAttentionRequest&)> change;
    StatusCode code;
    const char* message;
  } kCases[] = {
      {[](auto& r) { r.set_model("no-such"); }, StatusCode::NOT_FOUND, "no-such"},
      {[](auto& r) { r.set_version(99); }, StatusCode::NOT_FOUND, "99"},
      {[](auto& r) { r.set_table("no-such"); }, StatusCode::NOT_FOUND, "no-such"},
      {[](auto& r) { r.set_batch(0); }, StatusCode::INVALID_ARGUMENT, "batch"},
      {[](auto& r) { r.clear_q(); }, StatusCode::INVALID_ARGUMENT, "q"},
      {[](auto& r) { r.mutable_k_shared(); }, StatusCode::FAILED_PRECONDITION, "k_shared"},
      {[](auto& r) { r.set_model(std::string(Limits().max_header_bytes + 1, 'a')); }, StatusCode::RESOURCE_EXHAUSTED,
       "1048576"},
      {[](auto& r) {  // a result over its limit
         r.set_query_length(1 << 20);
         r.set_q(std::string(std::size_t{kHeads} * (1 << 20) * 4 * 4, '\0'));
       },
       StatusCode::RESOURCE_EXHAUSTED, "--max_result_bytes"},
      {[](auto& r) {  // more than may be in flight
         r.set_query_length(1 << 14);
         r.set_q(std::string(std::size_t{kHeads} * (1 << 14) * 4 * 4, '\0'));
       },
       StatusCode::RESOURCE_EXHAUSTED, "--max_inflight_bytes"},
  };
  for (const auto& c : kCases) {
    v1::ComputeAttentionRequest request = TestCall().Message();
    c.change(request);
    PendingCall pending(server, request);
    EXPECT_EQ(pending.Wait().error_code(), c.code) << pending.Wait().error_message();
    EXPECT_THAT(pending.Wait().error_message(), HasSubstr(c.message));
    server.ExpectIdle();
  }
  PendingCall good(server, TestCall().Message());
  EXPECT_TRUE(good.Wait().ok()) << good.Wait().error_message();
}

TEST(ServiceTest, ErrorsOfAFieldCarryItsDetail) {
  AttentionServer server;
  v1::ComputeAttentionRequest request = TestCall().Message();
  request.set_head_dim(5);
  PendingCall pending(server, request);
  EXPECT_EQ(pending.Wait().error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(pending.Wait().error_details(), HasSubstr("attnd.v1.ErrorDetail"));
}

TEST(ServiceTest, BytesThatAreNoRequest) {
  AttentionServer server;
  for (const std::string& bytes : {std::string("\x08"), std::string("\xff\xff"), std::string("\xa2\x06\x05q", 4),
                                   std::string("\x0a\x02\xff\xfe", 4)}) {
    EXPECT_EQ(SendRaw(server, bytes).error_code(), StatusCode::INVALID_ARGUMENT);
    server.ExpectIdle();
  }
  EXPECT_EQ(SendRaw(server, "").error_code(), StatusCode::INVALID_ARGUMENT) << "a request without a model";
  server.ExpectIdle();
}

TEST(ServiceTest, ACallIsInTheGateUntilItIsAnswered) {
  AttentionServer server;
  server.kernel.Hold();
  const TestCall call(kLarge);
  PendingCall pending(server, call.Message());
  ASSERT_TRUE(server.kernel.AwaitHeld());
  EXPECT_EQ(server.gate.inside(), 1);
  EXPECT_EQ(InflightBytes(server.engine), call.AdmittedBytes());
  server.kernel.Release();
  ASSERT_TRUE(pending.Wait().ok()) << pending.Wait().error_message();
  ExpectIsTheFormula(call, TestTable(false), pending.response().output(), "");
  server.ExpectIdle();
}

// In one process the reply that the client has got is the memory that the engine wrote.
TEST(ServiceTest, TheReplyIsInFlightUntilGrpcLetsGoOfIt) {
  AttentionServer server;
  const TestCall call(kLarge);
  grpc::ByteBuffer reply;
  ASSERT_TRUE(SendRaw(server, call.Message().SerializeAsString(), &reply).ok());
  EXPECT_TRUE(server.AwaitInside(0)) << "the call itself is over";
  EXPECT_EQ(InflightBytes(server.engine), call.AdmittedBytes() - call.WorkBytes());
  reply.Clear();
  server.ExpectIdle();
}

TEST(ServiceTest, AClosedGateRefusesAndThoseInsideAreAnswered) {
  AttentionServer server;
  server.kernel.Hold();
  PendingCall accepted(server, TestCall(kLarge).Message());
  ASSERT_TRUE(server.kernel.AwaitHeld());
  server.gate.Close();
  for (const CallSizes& sizes : {CallSizes(), kLarge}) {
    PendingCall late(server, TestCall(sizes).Message());
    EXPECT_EQ(late.Wait().error_code(), StatusCode::UNAVAILABLE) << late.Wait().error_message();
  }
  EXPECT_EQ(SendRaw(server, "\x08").error_code(), StatusCode::UNAVAILABLE) << "before it is looked at";
  EXPECT_EQ(server.gate.inside(), 1);
  server.kernel.Release();
  EXPECT_TRUE(accepted.Wait().ok()) << accepted.Wait().error_message();
  server.ExpectIdle();
}

TEST(ServiceTest, CancellingEndsTheWork) {
  AttentionServer server;
  server.kernel.Hold();
  PendingCall pending(server, TestCall(kEndless).Message(), FarDeadline());
  const bool held = server.kernel.AwaitHeld();
  pending.Cancel();
  ASSERT_TRUE(held);
  EXPECT_EQ(pending.Wait().error_code(), StatusCode::CANCELLED);
  EXPECT_EQ(server.gate.inside(), 1) << "it is being computed still";
  server.kernel.ReleaseSlowly();  // the rest would take longer than ExpectIdle waits
  server.ExpectIdle();
}

TEST(ServiceTest, CancellingACallThatWaitsForAnother) {
  AttentionServer server;
  server.kernel.Hold();
  const TestCall first(kLarge);
  PendingCall first_pending(server, first.Message());
  ASSERT_TRUE(server.kernel.AwaitHeld());
  PendingCall second_pending(server, TestCall(kLarge, 2).Message());
  ASSERT_TRUE(server.AwaitInside(2));
  second_pending.Cancel();
  EXPECT_EQ(second_pending.Wait().error_code(), StatusCode::CANCELLED);
  server.kernel.Release();
  ASSERT_TRUE(first_pending.Wait().ok());
  ExpectIsTheFormula(first, TestTable(false), first_pending.response().output(), "");
  server.ExpectIdle();
}

TEST(ServiceTest, PassingTheDeadlineEndsTheWork) {
  AttentionServer server;
  server.kernel.Hold();
  PendingCall pending(server, TestCall(kEndless).Message(), std::chrono::system_clock::now() + std::chrono::seconds(2));
  ASSERT_TRUE(server.kernel.AwaitHeld());
  EXPECT_EQ(pending.Wait().error_code(), StatusCode::DEADLINE_EXCEEDED);
  server.kernel.ReleaseSlowly();
  server.ExpectIdle();
}

TEST(ServiceTest, CallsOfEveryKindAtOnceAllLeaveTheGate) {
  Limits limits;
  const TestCall large(kLarge);
  limits.max_inflight_bytes = 3 * large.AdmittedBytes();
  AttentionServer server(limits);
  const v1::ComputeAttentionRequest small_request = TestCall().Message();
  const v1::ComputeAttentionRequest large_request = large.Message();
  v1::ComputeAttentionRequest bad_request = small_request;
  bad_request.set_heads(7);
  std::atomic<int> answered{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < 24; ++i) {
        const int kind = (i + t) % 4;
        PendingCall pending(server, kind == 0 ? small_request : kind == 1 ? bad_request : large_request);
        if (kind == 3) pending.Cancel();
        const StatusCode code = pending.Wait().error_code();
        if (code == StatusCode::OK) ++answered;
        if (kind == 1) {
          EXPECT_EQ(code, StatusCode::INVALID_ARGUMENT);
        } else if (kind == 3) {
          EXPECT_THAT(code, testing::AnyOf(StatusCode::OK, StatusCode::CANCELLED, StatusCode::RESOURCE_EXHAUSTED));
        } else {
          EXPECT_THAT(code, testing::AnyOf(StatusCode::OK, StatusCode::RESOURCE_EXHAUSTED));
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(answered.load(), 0);
  server.ExpectIdle();
}

}  // namespace
}  // namespace attnd::server
