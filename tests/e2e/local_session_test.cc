// What sessions over a local socket have of their own: the order of messages, tensors in shared memory, and callers who
// send more than is computed.
#include <cstdint>
#include <memory>
#include <string>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "raw_region.h"
#include "session_support.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;
using test::LocalCaller;
using test::RawRegion;
using testing::HasSubstr;

v1::LocalRequest MessageOf(const v1::SessionRequest& request) {
  v1::LocalRequest message;
  *message.mutable_session() = request;
  return message;
}

v1::LocalRequest Opening(const v1::SessionOpen& open) {
  v1::SessionRequest request;
  *request.mutable_open() = open;
  return MessageOf(request);
}

v1::LocalRequest Closing() {
  v1::LocalRequest message;
  message.mutable_session_close();
  return message;
}

class LocalSessionTest : public testing::Test {
 protected:
  LocalSessionTest() { EXPECT_TRUE(caller_.Greet().sessions()); }

  void Open(const v1::SessionOpen& open) {
    ASSERT_TRUE(caller_.Send(Opening(open)));
    const std::optional<v1::LocalReply> reply = caller_.Receive();
    ASSERT_TRUE(reply.has_value() && reply->session().has_opened()) << reply->DebugString();
    opened_ = reply->session().opened();
  }
  v1::SessionStepResult Ask(const v1::SessionRequest& step) {
    EXPECT_TRUE(caller_.Send(MessageOf(step)));
    const std::optional<v1::LocalReply> reply = caller_.Receive();
    EXPECT_TRUE(reply.has_value() && reply->session().has_result());
    return reply.has_value() ? reply->session().result() : v1::SessionStepResult();
  }
  // The session's end; code -1 if none comes.
  v1::LocalSessionEnd End() {
    while (const std::optional<v1::LocalReply> reply = caller_.Receive()) {
      if (reply->has_session_end()) return reply->session_end();
    }
    v1::LocalSessionEnd none;
    none.set_code(-1);
    return none;
  }

  SessionServer server_;
  LocalCaller caller_{server_.local_path()};
  v1::SessionOpened opened_;
};

TEST_F(LocalSessionTest, AConnectionHasOneSession) {
  Open(OpenOf(1, 0, v1::DTYPE_FP32));
  EXPECT_EQ(opened_.max_message_bytes(), 65536 - 16);
  EXPECT_EQ(Ask(TokenStep(1, 1)).code(), 0);
  // Calls go on beside it.
  EXPECT_EQ(caller_.Call(ValidRequest()).code(), 0);
  ASSERT_TRUE(caller_.Send(Closing()));
  EXPECT_EQ(End().code(), 0);
  EXPECT_EQ(server_.server().inflight_bytes(), 0);
  EXPECT_EQ(caller_.Call(ValidRequest()).code(), 0);
  ASSERT_TRUE(caller_.Send(Opening(OpenOf(1, 0, v1::DTYPE_FP32))));
  EXPECT_FALSE(caller_.Receive().has_value()) << "the connection is ended";
}

TEST_F(LocalSessionTest, WhatIsSentAfterTheServersEndIsIgnored) {
  v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  open.set_model("nobody");
  ASSERT_TRUE(caller_.Send(Opening(open)));
  ASSERT_TRUE(caller_.Send(MessageOf(TokenStep(1, 1))));
  const v1::LocalSessionEnd end = End();
  EXPECT_EQ(end.code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(end.detail().field(), "open.model");
  ASSERT_TRUE(caller_.Send(MessageOf(TokenStep(2, 1))));
  ASSERT_TRUE(caller_.Send(Opening(OpenOf(1, 0, v1::DTYPE_FP32))));
  ASSERT_TRUE(caller_.Send(Closing()));
  EXPECT_EQ(caller_.Call(ValidRequest()).code(), 0);
}

TEST_F(LocalSessionTest, MessagesOutOfPlaceEndTheConnection) {
  const v1::LocalRequest opening = Opening(OpenOf(1, 0, v1::DTYPE_FP32));
  {
    LocalCaller early(server_.local_path());
    ASSERT_TRUE(early.Send(opening));
    EXPECT_FALSE(early.Receive().has_value()) << "no hello";
  }
  ASSERT_TRUE(caller_.Send(Closing()));
  EXPECT_FALSE(caller_.Receive().has_value()) << "no session";
}

// Any way of writing a LocalRequest will do, not only the shortest.
TEST_F(LocalSessionTest, MessagesMayHaveFieldsThatNobodyKnows) {
  const std::string unknown("\xf8\x07\x01", 3);  // field 127: 1
  const std::string opening = Opening(OpenOf(1, 0, v1::DTYPE_FP32)).SerializeAsString();
  ASSERT_TRUE(caller_.raw().Send(unknown + opening));
  const std::optional<v1::LocalReply> reply = caller_.Receive();
  ASSERT_TRUE(reply.has_value() && reply->session().has_opened());
  ASSERT_TRUE(caller_.raw().Send(MessageOf(TokenStep(1, 1)).SerializeAsString() + unknown));
  EXPECT_EQ(caller_.Receive()->session().result().code(), 0);
}

TEST_F(LocalSessionTest, BytesThatAreNoMessageEndTheSession) {
  Open(OpenOf(1, 0, v1::DTYPE_FP32));
  ASSERT_TRUE(caller_.raw().Send(std::string("\x22\x02\xff\xff", 4)));
  EXPECT_EQ(End().code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(server_.server().inflight_bytes(), 0);
}

TEST_F(LocalSessionTest, WhatIsWrongWithSharedTensorsIsSaidAndChangesNothing) {
  Open(OpenOf(2, 0, v1::DTYPE_FP32));
  const RawRegion region(caller_.raw(), 4096);
  const v1::SessionRequest good = TokenStep(1, 2);
  const std::uint64_t bytes = good.q().size();
  v1::SessionRequest step = good;
  *step.mutable_step()->mutable_k_shared() = region.At(0);
  EXPECT_EQ(Ask(step).detail().field(), "k");  // beside bytes that were sent
  step.clear_k();
  step.mutable_step()->mutable_k_shared()->set_region(std::string(16, 'x'));
  v1::SessionStepResult result = Ask(step);
  EXPECT_EQ(result.code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(result.detail().field(), "k_shared.region");
  *step.mutable_step()->mutable_k_shared() = region.At(4096 - bytes + 1);
  EXPECT_THAT(Ask(step).detail().field(), HasSubstr("k_shared"));
  *step.mutable_step()->mutable_k_shared() = region.At(0);
  step.clear_q();
  *step.mutable_step()->mutable_q_shared() = region.At(0);
  *step.mutable_step()->mutable_output_shared() = region.At(bytes - 4);
  EXPECT_EQ(Ask(step).detail().field(), "output_shared.offset");  // over q
  *step.mutable_step()->mutable_output_shared() = region.At(2048);
  *step.mutable_step()->mutable_log_sum_exp_shared() = region.At(3000);
  EXPECT_EQ(Ask(step).detail().field(), "log_sum_exp_shared");  // not asked for
  step.mutable_step()->clear_log_sum_exp_shared();
  step.mutable_step()->set_query_length(0);
  EXPECT_EQ(Ask(step).detail().field(), "q");  // no queries
  step = good;
  EXPECT_EQ(Ask(step).lengths(0), 1) << "nothing was appended";
}

TEST_F(LocalSessionTest, AnOutputThatFindsNoRoomInADatagramIsRefused) {
  Open(OpenOf(4, 0, v1::DTYPE_FP32));
  v1::SessionRequest step = TokenStep(1, 4, 150);
  const std::size_t bytes = step.q().size();
  ASSERT_GT(bytes, 65536U);
  const RawRegion region(caller_.raw(), 3 * bytes);
  for (std::string* tensor : {step.mutable_q(), step.mutable_k(), step.mutable_v()}) tensor->clear();
  *step.mutable_step()->mutable_q_shared() = region.At(0);
  *step.mutable_step()->mutable_k_shared() = region.At(0);
  *step.mutable_step()->mutable_v_shared() = region.At(bytes);
  const v1::SessionStepResult result = Ask(step);
  EXPECT_EQ(result.code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(result.detail().field(), "output");
  *step.mutable_step()->mutable_output_shared() = region.At(2 * bytes);
  EXPECT_EQ(Ask(step).lengths(0), 150) << "nothing was appended before";
}

TEST_F(LocalSessionTest, ASessionWhoseLengthsFindNoRoomInADatagramIsRefused) {
  v1::SessionOpen open = OpenOf(20000, 0, v1::DTYPE_FP32);
  open.set_max_tokens(1);
  ASSERT_TRUE(caller_.Send(Opening(open)));
  const v1::LocalSessionEnd end = End();
  EXPECT_EQ(end.code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(end.detail().field(), "rows");
}

// As many steps as the server takes ahead, and as the socket holds.
TEST_F(LocalSessionTest, ACallerWhoSendsMoreThanIsComputedIsHeldBack) {
  v1::SessionOpen open = OpenOf(64, 0, v1::DTYPE_FP32);
  open.set_max_tokens(3000);
  Open(open);
  v1::SessionRequest first = TokenStep(1, 64, 1500);  // hundreds of milliseconds
  const std::size_t bytes = first.q().size();
  const RawRegion region(caller_.raw(), 3 * bytes);
  for (std::string* tensor : {first.mutable_q(), first.mutable_k(), first.mutable_v()}) tensor->clear();
  *first.mutable_step()->mutable_q_shared() = region.At(0);
  *first.mutable_step()->mutable_k_shared() = region.At(0);
  *first.mutable_step()->mutable_v_shared() = region.At(bytes);
  *first.mutable_step()->mutable_output_shared() = region.At(2 * bytes);
  ASSERT_TRUE(caller_.Send(MessageOf(first)));
  constexpr std::uint64_t kMany = 1000;
  std::uint64_t sent = 1;
  while (sent < kMany && caller_.raw().Send(MessageOf(TokenStep(sent + 1, 64)).SerializeAsString(), {}, false)) ++sent;
  EXPECT_LT(sent, kMany) << "the server keeps them all";
  // None is lost, and another caller is served meanwhile.
  LocalCaller other(server_.local_path());
  EXPECT_EQ(other.Greet().code(), 0);
  EXPECT_EQ(other.Call(ValidRequest()).code(), 0);
  for (std::uint64_t step = 1; step <= sent; ++step) {
    const std::optional<v1::LocalReply> reply = caller_.Receive();
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->session().result().step(), step);
    EXPECT_EQ(reply->session().result().code(), 0) << reply->session().result().message();
  }
}

// Answers that nobody reads hold the steps up, not the server.
TEST_F(LocalSessionTest, ACallerWhoDoesNotReadIsNotComputedFor) {
  Open(OpenOf(1, 0, v1::DTYPE_FP32));
  std::uint64_t sent = 0;
  while (sent < 100000 && caller_.raw().Send(MessageOf(TokenStep(sent + 1, 1)).SerializeAsString(), {}, false)) ++sent;
  LocalCaller other(server_.local_path());
  EXPECT_EQ(other.Greet().code(), 0);
  EXPECT_EQ(other.Call(ValidRequest()).code(), 0);
  const std::int64_t held = server_.server().inflight_bytes() - opened_.reserved_bytes();
  EXPECT_LT(held, 1 << 20);
  for (std::uint64_t step = 1; step <= sent; ++step) {
    const std::optional<v1::LocalReply> reply = caller_.Receive();
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->session().result().step(), step);
  }
}

}  // namespace
}  // namespace attnd::e2e
