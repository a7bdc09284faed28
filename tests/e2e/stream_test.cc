// StreamAttention on a real server: pieces in any order, errors that stay with their piece, bounded memory, and callers
// who break off, repeat themselves or do not read.

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/attention/stream.h"

namespace attnd::e2e {
namespace {

using testing::HasSubstr;

struct Call {
  explicit Call(TestServer& server) : stream(server.attention().StreamAttention(&context)) {}
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>> stream;
};

// The next calls are as good as ever.
void ExpectStillServes(TestServer& server) {
  const v1::ComputeAttentionRequest request = ValidRequest();
  v1::ComputeAttentionResponse response;
  ASSERT_TRUE(server.Compute(request, &response).ok());
  ExpectMatchesReference(request, response);
}

TEST(StreamTest, EveryPieceIsAnsweredAsItsCallWouldBe) {
  TestServer server;
  Call call(server);
  std::map<std::uint64_t, v1::ComputeAttentionResponse> expected;
  for (std::uint64_t id = 0; id < 40; ++id) {
    v1::ComputeAttentionRequest request = ValidRequest(
        {.query_length = 5 + static_cast<std::int64_t>(id) * 7, .key_length = 300 - static_cast<std::int64_t>(id)},
        static_cast<unsigned>(id));
    request.set_return_log_sum_exp(id % 2 == 0);
    ASSERT_TRUE(server.Compute(request, &expected[id * 1000]).ok());
    ASSERT_TRUE(call.stream->Write(PieceOf(id * 1000, request)));
  }
  call.stream->WritesDone();
  v1::StreamAttentionResponse answer;
  while (call.stream->Read(&answer)) {
    ASSERT_TRUE(expected.contains(answer.id()));
    EXPECT_EQ(answer.code(), 0) << answer.message();
    EXPECT_EQ(answer.output(), expected[answer.id()].output());
    EXPECT_EQ(answer.log_sum_exp(), expected[answer.id()].log_sum_exp());
    EXPECT_EQ(answer.result().content_hash(), expected[answer.id()].content_hash());
    expected.erase(answer.id());
  }
  EXPECT_TRUE(expected.empty());
  EXPECT_TRUE(call.stream->Finish().ok());
}

TEST(StreamTest, ErrorsStayWithTheirPiece) {
  TestServer server;
  Call call(server);
  v1::ComputeAttentionRequest bad = ValidRequest();
  bad.set_head_dim(0);
  ASSERT_TRUE(call.stream->Write(PieceOf(1, bad)));
  bad = ValidRequest();
  bad.set_model("nobody");
  ASSERT_TRUE(call.stream->Write(PieceOf(2, bad)));
  v1::StreamAttentionRequest doubled = PieceOf(3, ValidRequest());
  doubled.mutable_call()->set_q("inside");
  ASSERT_TRUE(call.stream->Write(doubled));
  ASSERT_TRUE(call.stream->Write(PieceOf(4, ValidRequest())));
  call.stream->WritesDone();
  std::map<std::uint64_t, v1::StreamAttentionResponse> answers;
  v1::StreamAttentionResponse answer;
  while (call.stream->Read(&answer)) answers[answer.id()] = answer;
  EXPECT_TRUE(call.stream->Finish().ok());
  EXPECT_EQ(answers[1].code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(answers[1].detail().field(), "head_dim");
  EXPECT_THAT(answers[1].message(), HasSubstr("head_dim: expected"));
  EXPECT_EQ(answers[2].code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(answers[3].code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(answers[3].detail().field(), "call");
  EXPECT_EQ(answers[4].code(), 0);
}

TEST(StreamTest, APieceSaysHowManyHeadsTheTableShouldHave) {
  TestServer server;
  Call call(server);
  v1::ComputeAttentionRequest some = ValidRequest();
  some.set_first_head(0);
  some.set_table_heads(kHeads);
  ASSERT_TRUE(call.stream->Write(PieceOf(1, some)));
  some.set_table_heads(kHeads + 1);
  ASSERT_TRUE(call.stream->Write(PieceOf(2, some)));
  call.stream->WritesDone();
  std::map<std::uint64_t, v1::StreamAttentionResponse> answers;
  v1::StreamAttentionResponse answer;
  while (call.stream->Read(&answer)) answers[answer.id()] = answer;
  EXPECT_EQ(answers[1].code(), 0);
  EXPECT_EQ(answers[2].detail().field(), "heads");
  EXPECT_EQ(answers[2].detail().got(), std::to_string(kHeads + 1));
}

TEST(StreamTest, AnIdInUseEndsTheStream) {
  TestServer server;
  Call call(server);
  // The first is large enough that its answer is not there before the second arrives.
  const v1::ComputeAttentionRequest slow =
      ValidRequest({.batch = 1, .query_length = 6000, .key_length = 6000, .head_dim = 64});
  ASSERT_TRUE(call.stream->Write(PieceOf(7, slow)));
  call.stream->Write(PieceOf(7, ValidRequest()));
  call.stream->WritesDone();
  v1::StreamAttentionResponse answer;
  while (call.stream->Read(&answer)) {
  }
  const grpc::Status status = call.stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf(status).field(), "id");
  ExpectStillServes(server);
}

TEST(StreamTest, BytesThatAreNoMessageEndTheStream) {
  TestServer server;
  std::string reply;
  const grpc::Status status = RawCall(server.channel(), "/attnd.v1.AttentionService/StreamAttention",
                                      {grpc::Slice(std::string("\x08"))}, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ExpectStillServes(server);
}

TEST(StreamTest, AnEmptyStreamIsFine) {
  TestServer server;
  Call call(server);
  call.stream->WritesDone();
  v1::StreamAttentionResponse answer;
  EXPECT_FALSE(call.stream->Read(&answer));
  EXPECT_TRUE(call.stream->Finish().ok());
}

TEST(StreamTest, CallersMayVanishAtAnyMoment) {
  TestServer server;
  const v1::StreamAttentionRequest piece =
      PieceOf(0, ValidRequest({.batch = 4, .query_length = 300, .key_length = 300, .head_dim = 32}));
  for (int after = 0; after < 30; ++after) {
    // A channel of its own, which goes with the call: the server sees a connection break.
    const std::shared_ptr<grpc::Channel> channel = NewChannel(server.address());
    const std::unique_ptr<v1::AttentionService::Stub> stub = v1::AttentionService::NewStub(channel);
    grpc::ClientContext context;
    auto stream = stub->StreamAttention(&context);
    v1::StreamAttentionRequest next = piece;
    for (int i = 0; i < after; ++i) {
      next.set_id(static_cast<std::uint64_t>(i));
      stream->Write(next);
      v1::StreamAttentionResponse answer;
      if (i % 3 == 2) stream->Read(&answer);
    }
    context.TryCancel();
  }
  ExpectStillServes(server);
}

TEST(StreamTest, ASlowReaderHoldsNoMoreThanTheWindow) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = std::int64_t{96} << 20;
  TestServer server(options);
  // Answers of 4 MiB to small requests: q is one head wide, v many. Nobody reads them.
  Call call(server);
  const v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 8, .query_length = 1024, .key_length = 1024, .head_dim = 32});
  const v1::StreamAttentionRequest piece = PieceOf(0, request);
  std::atomic<int> written{0};
  std::thread writer([&] {
    v1::StreamAttentionRequest next = piece;
    for (int i = 0; i < 60; ++i) {
      next.set_id(static_cast<std::uint64_t>(i));
      if (!call.stream->Write(next)) return;
      ++written;
    }
    call.stream->WritesDone();
  });
  // While nothing is read the server takes no more than its window and what the transport buffers, so the other calls
  // find room: without the window 60 pieces of 8 MiB each would be in flight, five times the limit.
  for (int i = 0; i < 20; ++i) ExpectStillServes(server);
  std::set<std::uint64_t> answered;
  v1::StreamAttentionResponse answer;
  while (call.stream->Read(&answer)) {
    EXPECT_EQ(answer.code(), 0) << answer.message();
    answered.insert(answer.id());
  }
  writer.join();
  EXPECT_TRUE(call.stream->Finish().ok());
  EXPECT_EQ(answered.size(), 60U);
}

TEST(StreamTest, DeadlineEndsIt) {
  TestServer server;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(150));
  auto stream = server.attention().StreamAttention(&context);
  stream->Write(PieceOf(1, ValidRequest({.batch = 64, .query_length = 4000, .key_length = 4000, .head_dim = 64})));
  v1::StreamAttentionResponse answer;
  while (stream->Read(&answer)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ExpectStillServes(server);
}

}  // namespace
}  // namespace attnd::e2e
