// Within one process gRPC buffers nothing: a message has left its sender once the other side reads it. So what these
// tests see written is what the stream has read, and what it has read and not answered is in the gate.

#include "server/attention/stream.h"

#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "attention/attention_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/attention/result_size.h"
#include "server/attention/stream_state.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

// A stream of pieces. Its destructor cancels it if it has not ended.
class Call {
 public:
  explicit Call(AttentionServer& server, std::chrono::system_clock::time_point deadline = Patience()) {
    context_.set_deadline(deadline);
    stream_ = server.stub->StreamAttention(&context_);
  }
  ~Call() {
    if (!ended_) {
      context_.TryCancel();
      Finish();
    }
  }

  bool Write(const v1::StreamAttentionRequest& piece) { return stream_->Write(piece); }
  void WritesDone() { stream_->WritesDone(); }
  // `count` pieces with ids from `first` on, and the end, unless the stream ends before.
  void WriteAll(const TestCall& piece, std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t id = first; id < first + count; ++id) {
      if (!Write(piece.Piece(id))) return;
    }
    WritesDone();
  }
  void Cancel() { context_.TryCancel(); }

  // The next answer; false at the stream's end.
  bool Read(v1::StreamAttentionResponse* answer) { return stream_->Read(answer); }

  // Reads what is left.
  std::map<std::uint64_t, v1::StreamAttentionResponse> ReadAll() {
    std::map<std::uint64_t, v1::StreamAttentionResponse> answers;
    v1::StreamAttentionResponse answer;
    while (stream_->Read(&answer)) {
      EXPECT_TRUE(answers.emplace(answer.id(), answer).second) << "answered twice: " << answer.id();
    }
    return answers;
  }

  grpc::Status Finish() {
    v1::StreamAttentionResponse answer;
    while (stream_->Read(&answer)) {
    }
    ended_ = true;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>> stream_;
  bool ended_ = false;
};

// Calls that the server answers while a stream stands still: what it was going to do it has had the time to do.
void LetTheServerWork(AttentionServer& server) {
  v1::ComputeAttentionRequest request = TestCall().Message();
  request.set_model("no-such");
  for (int i = 0; i < 200; ++i) {
    grpc::ClientContext context;
    context.set_deadline(Patience());
    v1::ComputeAttentionResponse response;
    ASSERT_EQ(server.stub->ComputeAttention(&context, request, &response).error_code(), StatusCode::NOT_FOUND);
  }
}

TEST(StreamTest, AnswersCarryTheIdsOfTheirPieces) {
  AttentionServer server;
  Call call(server);
  std::vector<std::unique_ptr<TestCall>> calls;
  for (std::uint64_t i = 0; i < 12; ++i) {
    calls.push_back(std::make_unique<TestCall>(CallSizes{.queries = 3 + static_cast<std::int64_t>(i), .keys = 40},
                                               static_cast<unsigned>(i)));
    calls.back()->header.set_return_log_sum_exp(i % 2 == 0);
    ASSERT_TRUE(call.Write(calls.back()->Piece(~i)));
  }
  call.WritesDone();
  const std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
  EXPECT_TRUE(call.Finish().ok());
  ASSERT_EQ(answers.size(), calls.size());
  const model::Model& model = **server.registry.Find(kModel);
  for (std::uint64_t i = 0; i < calls.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_EQ(answers.count(~i), 1U);
    const v1::StreamAttentionResponse& answer = answers.at(~i);
    EXPECT_EQ(answer.code(), 0);
    EXPECT_EQ(answer.message(), "");
    EXPECT_FALSE(answer.has_detail());
    EXPECT_EQ(answer.result().version(), model.version());
    EXPECT_EQ(answer.result().content_hash(), model.content_hash());
    EXPECT_EQ(answer.result().output(), "") << "the tensors stand beside it";
    ExpectIsTheFormula(*calls[i], TestTable(false), answer.output(), answer.log_sum_exp());
  }
  server.ExpectIdle();
}

TEST(StreamTest, APieceIsAnsweredAsSoonAsItIsDone) {
  AttentionServer server;
  server.kernel.Hold();
  Call call(server);
  ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(1)));
  ASSERT_TRUE(server.kernel.AwaitHeld());
  ASSERT_TRUE(call.Write(TestCall().Piece(2)));  // small: computed where it arrives
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(call.Read(&answer));
  EXPECT_EQ(answer.id(), 2U);
  EXPECT_EQ(answer.code(), 0) << answer.message();
  server.kernel.Release();
  ASSERT_TRUE(call.Read(&answer));
  EXPECT_EQ(answer.id(), 1U);
  EXPECT_EQ(answer.code(), 0) << answer.message();
  call.WritesDone();
  EXPECT_FALSE(call.Read(&answer));
  EXPECT_TRUE(call.Finish().ok());
  server.ExpectIdle();
}

TEST(StreamTest, AnEmptyStream) {
  AttentionServer server;
  Call call(server);
  call.WritesDone();
  EXPECT_TRUE(call.ReadAll().empty());
  EXPECT_TRUE(call.Finish().ok());
  server.ExpectIdle();
}

TEST(StreamTest, ARefusedPieceIsAnsweredWithItsErrorAndTheStreamGoesOn) {
  Limits limits;
  limits.max_result_bytes = 4096;
  AttentionServer server(limits);
  Call call(server);
  const TestCall good;
  ASSERT_TRUE(call.Write(good.Piece(1)));
  v1::StreamAttentionRequest bad = good.Piece(2);
  bad.mutable_call()->set_model("no-such");
  ASSERT_TRUE(call.Write(bad));
  bad = good.Piece(3);
  bad.mutable_call()->set_head_dim(0);
  ASSERT_TRUE(call.Write(bad));
  bad = good.Piece(4);
  bad.mutable_call()->set_k("k");
  ASSERT_TRUE(call.Write(bad));
  bad = good.Piece(5);
  bad.clear_call();
  ASSERT_TRUE(call.Write(bad));
  ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(6)));
  ASSERT_TRUE(call.Write(good.Piece(7)));
  call.WritesDone();
  std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
  EXPECT_TRUE(call.Finish().ok());
  ASSERT_EQ(answers.size(), 7U);
  const struct {
    std::uint64_t id;
    StatusCode code;
    const char* field;
  } kExpected[] = {
      {1, StatusCode::OK, ""},
      {2, StatusCode::NOT_FOUND, "model"},
      {3, StatusCode::INVALID_ARGUMENT, "head_dim"},
      {4, StatusCode::INVALID_ARGUMENT, "call"},
      {5, StatusCode::INVALID_ARGUMENT, "model"},
      {6, StatusCode::RESOURCE_EXHAUSTED, "output"},
      {7, StatusCode::OK, ""},
  };
  for (const auto& e : kExpected) {
    SCOPED_TRACE(e.id);
    const v1::StreamAttentionResponse& answer = answers[e.id];
    EXPECT_EQ(answer.code(), e.code) << answer.message();
    EXPECT_EQ(answer.detail().field(), e.field);
    EXPECT_EQ(answer.message().empty(), e.code == StatusCode::OK);
    EXPECT_EQ(answer.has_result(), e.code == StatusCode::OK);
    EXPECT_EQ(answer.output().empty(), e.code != StatusCode::OK);
  }
  ExpectIsTheFormula(good, TestTable(false), answers[7].output(), "");
  server.ExpectIdle();
}

// Far more than the window altogether: each must give back what it held.
TEST(StreamTest, RefusedPiecesHoldNothing) {
  AttentionServer server;
  const std::string tensor(1 << 20, '\0');
  constexpr std::uint64_t kPieces = 80;
  static_assert(static_cast<std::int64_t>(kPieces << 20) > 4 * kStreamWindowBytes);
  v1::StreamAttentionRequest unknown_model;
  unknown_model.mutable_call()->set_model("no-such");
  unknown_model.set_q(tensor);
  v1::StreamAttentionRequest wrong_size = unknown_model;
  *wrong_size.mutable_call() = TestCall().header;
  v1::StreamAttentionRequest tensor_inside = unknown_model;
  tensor_inside.mutable_call()->set_v("v");
  for (const v1::StreamAttentionRequest& bad : {unknown_model, wrong_size, tensor_inside}) {
    Call call(server);
    v1::StreamAttentionRequest piece = bad;
    std::thread writer([&] {
      for (std::uint64_t id = 0; id < kPieces; ++id) {
        piece.set_id(id);
        if (!call.Write(piece)) return;
      }
      call.WritesDone();
    });
    const std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
    writer.join();
    EXPECT_TRUE(call.Finish().ok());
    EXPECT_EQ(answers.size(), kPieces);
    for (const auto& [id, answer] : answers) EXPECT_NE(answer.code(), 0) << id;
    server.ExpectIdle();
  }
}

TEST(StreamTest, PiecesThatAreDoneHoldNothing) {
  AttentionServer server;
  const TestCall piece({.queries = 16, .keys = 4096, .head_dim = 16, .value_head_dim = 16});
  constexpr std::uint64_t kPieces = 64;
  ASSERT_GT(static_cast<std::int64_t>(piece.Piece(0).ByteSizeLong() * kPieces), 3 * kStreamWindowBytes);
  Call call(server);
  std::thread writer([&] { call.WriteAll(piece, 0, kPieces); });
  const std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
  writer.join();
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_EQ(answers.size(), kPieces);
  for (const auto& [id, answer] : answers) EXPECT_EQ(answer.code(), 0) << id << ": " << answer.message();
  server.ExpectIdle();
}

// What the results of a piece take.
std::int64_t ResultBytes(const TestCall& call) {
  return SentResultBytes(call.header, std::numeric_limits<std::int64_t>::max());
}

// How many of these pieces are in the gate while none of them is read: those that the window has room for, and one that
// has arrived and waits.
std::int64_t InsideWithoutReads(const TestCall& call) {
  const auto message = static_cast<std::int64_t>(call.Piece(1).ByteSizeLong());
  return kStreamWindowBytes / (message + ResultBytes(call) + kPieceOverheadBytes) + 1;
}

TEST(StreamTest, ReadingPausesWhilePiecesHoldTheWindow) {
  AttentionServer server;
  server.kernel.Hold();
  const TestCall piece({.queries = 700, .keys = 700, .head_dim = 64, .value_head_dim = 64});
  constexpr std::uint64_t kPieces = 40;
  const std::int64_t read = InsideWithoutReads(piece);
  ASSERT_LT(read, static_cast<std::int64_t>(kPieces));
  Call call(server);
  std::thread writer([&] { call.WriteAll(piece, 1, kPieces); });
  EXPECT_TRUE(server.AwaitInside(read)) << server.gate.inside();
  LetTheServerWork(server);
  EXPECT_EQ(server.gate.inside(), read);
  server.kernel.Release();
  const std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
  writer.join();
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_EQ(answers.size(), kPieces);
  for (const auto& [id, answer] : answers) EXPECT_EQ(answer.code(), 0) << id << ": " << answer.message();
  server.ExpectIdle();
}

// Small pieces with large results: a row of q is a few numbers, one of v many.
const CallSizes kLargeResult = {.queries = 1024, .keys = 64, .head_dim = 4, .value_head_dim = 512};

// The results do not exist yet, but are promised.
TEST(StreamTest, ReadingPausesBeforeResultsHoldTheWindow) {
  AttentionServer server;
  server.kernel.Hold();
  const TestCall piece(kLargeResult);
  constexpr std::uint64_t kPieces = 40;
  ASSERT_LT(static_cast<std::int64_t>(piece.Piece(1).ByteSizeLong() * kPieces), kStreamWindowBytes);
  const std::int64_t read = InsideWithoutReads(piece);
  ASSERT_LT(read, 5);
  Call call(server);
  std::thread writer([&] { call.WriteAll(piece, 1, kPieces); });
  EXPECT_TRUE(server.AwaitInside(read)) << server.gate.inside();
  LetTheServerWork(server);
  EXPECT_EQ(server.gate.inside(), read);
  // Beside these the engine counts keys and values once more, as they are packed.
  EXPECT_LE(server.engine.inflight_bytes(), (read - 1) * piece.AdmittedBytes());
  EXPECT_LE((read - 1) * ResultBytes(piece), kStreamWindowBytes);
  server.kernel.Release();
  const std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
  writer.join();
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_EQ(answers.size(), kPieces);
  for (const auto& [id, answer] : answers) EXPECT_EQ(answer.code(), 0) << id << ": " << answer.message();
  server.ExpectIdle();
}

TEST(StreamTest, ReadingPausesWhileAnswersHoldTheWindow) {
  AttentionServer server;
  const TestCall piece({.queries = 512, .keys = 1, .head_dim = 1, .value_head_dim = 512});
  constexpr std::uint64_t kPieces = 30;
  const std::int64_t read = InsideWithoutReads(piece);
  ASSERT_LT(read, static_cast<std::int64_t>(kPieces));
  Call call(server);
  std::atomic<std::uint64_t> written{0};
  std::thread writer([&] {
    for (std::uint64_t id = 1; id <= kPieces; ++id) {
      if (!call.Write(piece.Piece(id))) return;
      ++written;
    }
    call.WritesDone();
  });
  EXPECT_TRUE(server.AwaitInside(read)) << server.gate.inside();
  LetTheServerWork(server);
  EXPECT_EQ(server.gate.inside(), read);
  EXPECT_LT(written.load(), kPieces);
  const std::map<std::uint64_t, v1::StreamAttentionResponse> answers = call.ReadAll();
  writer.join();
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_EQ(answers.size(), kPieces);
  server.ExpectIdle();
}

// Whoever cancels while a piece waits for room leaves nothing behind.
TEST(StreamTest, APieceThatWaitsIsDroppedWithItsStream) {
  AttentionServer server;
  server.kernel.Hold();
  const TestCall piece(kLargeResult);
  const std::int64_t read = InsideWithoutReads(piece);
  Call call(server, FarDeadline());
  for (std::int64_t id = 0; id < read; ++id) ASSERT_TRUE(call.Write(piece.Piece(static_cast<std::uint64_t>(id))));
  ASSERT_TRUE(server.AwaitInside(read)) << server.gate.inside();
  server.service.EndStreamsQuietFor(std::chrono::seconds(0));  // it is busy
  EXPECT_EQ(server.gate.inside(), read);
  call.Cancel();
  server.kernel.Release();
  server.ExpectIdle();
  EXPECT_EQ(call.Finish().error_code(), StatusCode::CANCELLED);
}

constexpr StallLimit kShortPatience = {.patience = absl::Milliseconds(50), .bytes_per_second = std::int64_t{1} << 40};

bool AwaitStalledWrites(const AttentionServer& server, std::int64_t count) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (server.counters.stalled_writes.load() != count && absl::Now() < deadline) std::this_thread::yield();
  return server.counters.stalled_writes.load() == count;
}

TEST(StreamTest, AStreamWhoseAnswersAreNotReadIsEnded) {
  AttentionServer server({}, kShortPatience);
  Call call(server, FarDeadline());
  for (std::uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(id)));
  EXPECT_TRUE(AwaitStalledWrites(server, 1)) << server.counters.stalled_writes.load();
  server.ExpectIdle();
  EXPECT_FALSE(call.Finish().ok());
  EXPECT_EQ(server.counters.stalled_writes.load(), 1);
}

TEST(StreamTest, WithoutALimitAnswersWaitForTheirReader) {
  AttentionServer server;
  Call call(server, FarDeadline());
  for (std::uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(id)));
  ASSERT_TRUE(server.AwaitInside(3));
  absl::SleepFor(10 * kShortPatience.patience);
  LetTheServerWork(server);
  EXPECT_EQ(server.gate.inside(), 3);
  call.WritesDone();
  EXPECT_EQ(call.ReadAll().size(), 3U);
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_EQ(server.counters.stalled_writes.load(), 0);
  server.ExpectIdle();
}

// Whoever waits for pieces, or computes, is not stalled.
TEST(StreamTest, AnIdleStreamIsNotStalled) {
  AttentionServer server({}, kShortPatience);
  server.kernel.Hold();
  Call idle(server, FarDeadline());
  Call computing(server, FarDeadline());
  ASSERT_TRUE(computing.Write(TestCall(kLarge).Piece(1)));
  ASSERT_TRUE(server.kernel.AwaitHeld());
  absl::SleepFor(10 * kShortPatience.patience);
  EXPECT_EQ(server.counters.stalled_writes.load(), 0);
  ASSERT_TRUE(idle.Write(TestCall().Piece(1)));
  v1::StreamAttentionResponse answer;
  EXPECT_TRUE(idle.Read(&answer));
  EXPECT_EQ(answer.code(), 0) << answer.message();
  server.kernel.Release();
  EXPECT_TRUE(computing.Read(&answer));
  EXPECT_EQ(answer.code(), 0) << answer.message();
}

// Each write has a time of its own, which ends with it.
TEST(StreamTest, AStreamWhoseAnswersWereReadIsNotStalled) {
  const StallLimit stall = {.patience = absl::Milliseconds(400), .bytes_per_second = std::int64_t{1} << 40};
  AttentionServer server({}, stall);
  Call call(server, FarDeadline());
  const auto ask = [&](const CallSizes& sizes) {
    v1::StreamAttentionResponse answer;
    ASSERT_TRUE(call.Write(TestCall(sizes).Piece(1)));
    ASSERT_TRUE(call.Read(&answer));
    EXPECT_EQ(answer.code(), 0) << answer.message();
  };
  for (int i = 0; i < 3; ++i) ask(i == 1 ? kLarge : CallSizes());
  absl::SleepFor(3 * stall.patience);  // the watch looks several times
  EXPECT_EQ(server.counters.stalled_writes.load(), 0);
  ask({});
  call.WritesDone();
  EXPECT_TRUE(call.Finish().ok());
  server.ExpectIdle();
}

TEST(StreamTest, AnswersSayThatTheServerIsGoingAway) {
  AttentionServer server;
  Call call(server);
  for (const bool going_away : {false, true}) {
    ASSERT_TRUE(call.Write(TestCall().Piece(1)));
    v1::StreamAttentionResponse answer;
    ASSERT_TRUE(call.Read(&answer));
    EXPECT_EQ(answer.going_away(), going_away);
    v1::StreamAttentionRequest refused = TestCall().Piece(2);
    refused.mutable_call()->set_batch(0);
    ASSERT_TRUE(call.Write(refused));
    ASSERT_TRUE(call.Read(&answer));
    EXPECT_EQ(answer.going_away(), going_away) << "errors too";
    server.service.EndStreamsQuietFor(std::chrono::hours(1));
  }
  call.WritesDone();
  EXPECT_TRUE(call.Finish().ok());
}

// Of what is announced, nothing is cut off, however quiet the stream is.
TEST(StreamTest, AStreamThatAnnouncedAPieceIsNotEnded) {
  AttentionServer server;
  Call call(server);
  v1::StreamAttentionRequest piece = TestCall().Piece(1);
  piece.set_more(true);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(call.Write(piece));
    v1::StreamAttentionResponse answer;
    ASSERT_TRUE(call.Read(&answer));
    ASSERT_TRUE(server.AwaitInside(0));
    EXPECT_EQ(server.service.EndStreamsQuietFor(std::chrono::nanoseconds(0)), 1);
  }
  piece.set_more(false);
  ASSERT_TRUE(call.Write(piece));
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(call.Read(&answer));
  EXPECT_EQ(answer.code(), 0);
  ASSERT_TRUE(server.AwaitInside(0));
  EXPECT_TRUE(test::Becomes([&] { return server.service.EndStreamsQuietFor(std::chrono::nanoseconds(0)) == 0; }));
  EXPECT_EQ(call.Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST(StreamTest, APieceLargerThanTheWindowIsTaken) {
  AttentionServer server;
  const TestCall piece({.queries = 1, .keys = 20000, .head_dim = 64, .value_head_dim = 64});
  ASSERT_GT(static_cast<std::int64_t>(piece.Piece(1).ByteSizeLong()), kStreamWindowBytes);
  Call call(server);
  for (std::uint64_t id = 1; id <= 2; ++id) {
    ASSERT_TRUE(call.Write(piece.Piece(id)));
    v1::StreamAttentionResponse answer;
    ASSERT_TRUE(call.Read(&answer));
    EXPECT_EQ(answer.id(), id);
    EXPECT_EQ(answer.code(), 0) << answer.message();
  }
  call.WritesDone();
  EXPECT_TRUE(call.Finish().ok());
  server.ExpectIdle();
}

TEST(StreamTest, AnIdInUseEndsTheStreamAndItsWork) {
  AttentionServer server;
  server.kernel.ReleaseSlowly();  // the first piece takes longer than the stream may
  Call call(server);
  ASSERT_TRUE(call.Write(TestCall(kEndless).Piece(7)));
  ASSERT_TRUE(server.AwaitInside(1));
  ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(7)));
  const grpc::Status status = call.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("id"));
  EXPECT_THAT(status.error_message(), HasSubstr("7"));
  server.ExpectIdle();
}

TEST(StreamTest, AnIdIsFreeOnceItIsAnswered) {
  AttentionServer server;
  Call call(server);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(call.Write(TestCall().Piece(7)));
    v1::StreamAttentionResponse answer;
    ASSERT_TRUE(call.Read(&answer));
    EXPECT_EQ(answer.id(), 7U);
    EXPECT_EQ(answer.code(), 0);
  }
  call.WritesDone();
  EXPECT_TRUE(call.Finish().ok());
  server.ExpectIdle();
}

TEST(StreamTest, MessagesThatAreNoPieceEndTheStream) {
  AttentionServer server;
  v1::StreamAttentionRequest large_header = TestCall().Piece(1);
  large_header.mutable_call()->set_model(std::string(Limits().max_header_bytes + 1, 'a'));
  v1::StreamAttentionRequest no_text = TestCall().Piece(1);
  // A field of the wrong type within the call: unknown fields go out as they are.
  no_text.mutable_call()
      ->GetReflection()
      ->MutableUnknownFields(no_text.mutable_call())
      ->AddLengthDelimited(1, "\xff\xfe");
  const struct {
    const v1::StreamAttentionRequest& message;
    StatusCode code;
  } kCases[] = {{large_header, StatusCode::RESOURCE_EXHAUSTED}, {no_text, StatusCode::INVALID_ARGUMENT}};
  for (const auto& c : kCases) {
    Call call(server);
    ASSERT_TRUE(call.Write(c.message));
    EXPECT_EQ(call.Finish().error_code(), c.code);
    server.ExpectIdle();
  }
}

TEST(StreamTest, ACancelledStreamEndsItsWorkAndLeavesTheGate) {
  AttentionServer server;
  server.kernel.Hold();
  Call call(server, FarDeadline());
  ASSERT_TRUE(call.Write(TestCall(kEndless).Piece(1)));
  ASSERT_TRUE(server.kernel.AwaitHeld());
  for (std::uint64_t id = 2; id <= 3; ++id) ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(id)));
  ASSERT_TRUE(server.AwaitInside(3));
  call.Cancel();
  EXPECT_EQ(call.Finish().error_code(), StatusCode::CANCELLED);
  EXPECT_GT(server.gate.inside(), 0) << "what is being computed is in the gate still";
  server.kernel.ReleaseSlowly();  // the rest would take longer than ExpectIdle waits
  server.ExpectIdle();
}

TEST(StreamTest, CancelledWithAnswersThatNobodyHasRead) {
  AttentionServer server;
  Call call(server);
  for (std::uint64_t id = 1; id <= 8; ++id) ASSERT_TRUE(call.Write(TestCall(kLarge).Piece(id)));
  EXPECT_GT(server.gate.inside(), 0) << "answers are in the gate until they are read";
  call.Cancel();
  server.ExpectIdle();
  EXPECT_EQ(call.Finish().error_code(), StatusCode::CANCELLED);
}

TEST(StreamTest, PassingTheDeadlineEndsTheWork) {
  AttentionServer server;
  server.kernel.Hold();
  Call call(server, std::chrono::system_clock::now() + std::chrono::seconds(2));
  ASSERT_TRUE(call.Write(TestCall(kEndless).Piece(1)));
  ASSERT_TRUE(server.kernel.AwaitHeld());
  EXPECT_EQ(call.Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  server.kernel.ReleaseSlowly();
  server.ExpectIdle();
}

// A job that has begun is finished, with pieces that come later.
TEST(StreamTest, AClosedGateLetsThePiecesOfAStreamThrough) {
  AttentionServer server;
  server.kernel.Hold();
  Call call(server);
  const TestCall accepted(kLarge);
  ASSERT_TRUE(call.Write(accepted.Piece(1)));
  ASSERT_TRUE(server.kernel.AwaitHeld());
  server.gate.Close();
  for (std::uint64_t id = 2; id <= 4; ++id) {
    ASSERT_TRUE(call.Write(TestCall().Piece(id)));
    v1::StreamAttentionResponse answer;
    ASSERT_TRUE(call.Read(&answer));
    EXPECT_EQ(answer.id(), id);
    EXPECT_EQ(answer.code(), 0) << answer.message();
  }
  server.service.EndStreamsQuietFor(std::chrono::seconds(0));  // the first piece is under way
  server.kernel.Release();
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(call.Read(&answer));
  EXPECT_EQ(answer.id(), 1U);
  EXPECT_EQ(answer.code(), 0) << answer.message();
  ExpectIsTheFormula(accepted, TestTable(false), answer.output(), "");
  call.WritesDone();
  EXPECT_TRUE(call.Finish().ok());
  server.ExpectIdle();
}

TEST(StreamTest, AQuietStreamIsEndedAndWhatComesThenIsNotBegun) {
  AttentionServer server;
  Call silent(server);
  Call used(server);
  ASSERT_TRUE(used.Write(TestCall().Piece(1)));
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(used.Read(&answer));
  ASSERT_TRUE(server.AwaitInside(0));
  server.service.EndStreamsQuietFor(std::chrono::hours(1));  // ends none: all were busy within the hour
  ASSERT_TRUE(used.Write(TestCall().Piece(2)));
  ASSERT_TRUE(used.Read(&answer));
  EXPECT_EQ(answer.id(), 2U);
  ASSERT_TRUE(server.AwaitInside(0));
  const schedule::Clock::time_point soon = schedule::Clock::now();
  while (schedule::Clock::now() == soon) std::this_thread::yield();
  server.service.EndStreamsQuietFor(std::chrono::nanoseconds(1));
  used.Write(TestCall().Piece(3));
  EXPECT_FALSE(used.Read(&answer));
  for (Call* call : {&silent, &used}) {
    const grpc::Status status = call->Finish();
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(status.error_message(), "the server is stopping; the call was not begun");
  }
  server.ExpectIdle();
}

// A piece arrives while its stream is ended: it is answered, or its stream has ended without it.
TEST(StreamTest, EndsAndPiecesMayCross) {
  AttentionServer server;
  for (int round = 0; round < 200; ++round) {
    Call call(server);
    std::atomic<bool> over{false};
    std::thread end([&] {
      // In every other round while the piece is inside; it may have come and gone between two looks.
      while (round % 2 == 0 && server.gate.inside() == 0 && !over) std::this_thread::yield();
      server.service.EndStreamsQuietFor(std::chrono::seconds(0));
    });
    call.Write(TestCall().Piece(1));
    call.WritesDone();
    const std::size_t answers = call.ReadAll().size();
    const grpc::Status status = call.Finish();
    over = true;
    end.join();
    // A stream that is ended may have had its piece answered before.
    if (status.ok()) {
      EXPECT_EQ(answers, 1U) << round;
    } else {
      EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE) << round << ": " << status.error_message();
    }
  }
  server.ExpectIdle();
}

TEST(StreamTest, StreamsKeepTheirIdsApart) {
  AttentionServer server;
  server.kernel.Hold();
  Call first(server);
  Call second(server);
  ASSERT_TRUE(first.Write(TestCall(kLarge).Piece(1)));
  ASSERT_TRUE(second.Write(TestCall(kLarge).Piece(1)));
  ASSERT_TRUE(server.AwaitInside(2));
  server.kernel.Release();
  for (Call* call : {&first, &second}) {
    call->WritesDone();
    EXPECT_EQ(call->ReadAll().size(), 1U);
    EXPECT_TRUE(call->Finish().ok());
  }
  server.ExpectIdle();
}

}  // namespace
}  // namespace attnd::server
