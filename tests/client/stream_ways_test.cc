// A large call's streams, by servers that count what is under way, answer twice or never, and see whether they are told
// to stop.
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "attnd/client.h"
#include "bounded.h"
#include "fake_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_request.h"
#include "wait.h"

namespace attnd::client {
namespace {

using testing::HasSubstr;

// 8 pieces of 1 MiB.
constexpr Sizes kEightPieces = {2, 4, 4, 512, 512, 128, 128};
constexpr int kInFlight = 4;  // StreamPlan::pieces_in_flight

v1::StreamAttentionResponse AnswerTo(const v1::StreamAttentionRequest& piece) {
  v1::StreamAttentionResponse response;
  response.set_id(piece.id());
  response.set_output(piece.v());
  response.mutable_result()->set_dtype(v1::DTYPE_FP32);
  response.mutable_result()->set_content_hash("abc");
  response.mutable_result()->mutable_compute_time()->set_seconds(1);
  return response;
}

// Handles each stream as a test tells it to.
class ScriptedStreams : public FakeAttention {
 public:
  using Handler = std::function<grpc::Status(grpc::ServerContext*, Pieces*)>;
  Handler script;
  std::atomic<int> ended{0};
  grpc::Status StreamAttention(grpc::ServerContext* context, Pieces* stream) override {
    ++streams;
    const grpc::Status status = script(context, stream);
    ++ended;
    return status;
  }
};

grpc::Status AnswerAll(grpc::ServerContext*, FakeAttention::Pieces* stream) {
  v1::StreamAttentionRequest piece;
  while (stream->Read(&piece)) stream->Write(AnswerTo(piece));
  return grpc::Status::OK;
}

grpc::Status WaitForItsEnd(grpc::ServerContext* context, FakeAttention::Pieces*) {
  EXPECT_TRUE(test::Becomes([&] { return context->IsCancelled(); })) << "the stream goes on at the server";
  return grpc::Status::CANCELLED;
}

class StreamWaysTest : public testing::TestWithParam<bool> {
 protected:
  StreamWaysTest() {
    options_.retry.enabled = false;
    first_.script = second_.script = AnswerAll;
  }
  Client One() { return *Client::Create(first_server_->target(), options_); }
  // Both servers, each connected.
  Client Both() {
    ClientOptions options = options_;
    options.load_balancing_policy = "round_robin";
    Client client =
        *Client::Create(absl::StrCat("ipv4:", first_server_->target(), ",", second_server_->target()), options);
    const auto first = first_.script, second = second_.script;
    first_.script = second_.script = AnswerAll;
    TestRequest t(kEightPieces);
    EXPECT_TRUE(test::Becomes([&] {
      EXPECT_TRUE(Call(client, t.request).ok());
      return first_.streams > 0 && second_.streams > 0;
    }));
    EXPECT_TRUE(test::Becomes([&] { return first_.ended == first_.streams && second_.ended == second_.streams; }));
    first_.script = first;
    second_.script = second;
    first_.streams = second_.streams = first_.ended = second_.ended = 0;
    return client;
  }
  absl::StatusOr<ComputeReply> Call(Client& client, const ComputeRequest& request, const CallOptions& options = {}) {
    return Bounded(
        [&] { return GetParam() ? client.ComputeFuture(request, options).get() : client.Compute(request, options); },
        [this] {
          first_server_.reset();
          second_server_.reset();
        });
  }
  static void ExpectWhole(const absl::StatusOr<ComputeReply>& reply, const TestRequest& t) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    ASSERT_EQ(reply->output.size_bytes(), t.v.size() * sizeof(float));
    EXPECT_EQ(std::memcmp(reply->output.data(), t.v.data(), reply->output.size_bytes()), 0);
  }

  ClientOptions options_;
  ScriptedStreams first_, second_;
  std::unique_ptr<FakeServer> first_server_ = std::make_unique<FakeServer>(std::vector<grpc::Service*>{&first_});
  std::unique_ptr<FakeServer> second_server_ = std::make_unique<FakeServer>(std::vector<grpc::Service*>{&second_});
};

// The fifth comes when one has been answered, and not before.
TEST_P(StreamWaysTest, NoMorePiecesThanPromisedAreUnderWay) {
  first_.script = [](grpc::ServerContext* context, FakeAttention::Pieces* stream) {
    std::vector<v1::StreamAttentionRequest> waiting(kInFlight);
    for (v1::StreamAttentionRequest& piece : waiting) EXPECT_TRUE(stream->Read(&piece));
    v1::StreamAttentionRequest next;
    auto read = std::async(std::launch::async, [&] { return stream->Read(&next); });
    EXPECT_EQ(read.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout) << "a fifth piece";
    for (const v1::StreamAttentionRequest& piece : waiting) stream->Write(AnswerTo(piece));
    if (read.wait_for(std::chrono::seconds(5)) != std::future_status::ready) {
      ADD_FAILURE() << "no fifth piece after four answers";
      context->TryCancel();
    }
    if (read.get()) stream->Write(AnswerTo(next));
    return AnswerAll(context, stream);
  };
  Client client = One();
  TestRequest t(kEightPieces);
  ExpectWhole(Call(client, t.request), t);
}

// Sent, but not asked for: of a piece that was answered, of one that is not sent yet, and of none.
TEST_P(StreamWaysTest, AnAnswerToWhatIsNotUnderWayFailsTheCall) {
  for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{7}, std::uint64_t{8}, ~std::uint64_t{0}}) {
    first_.script = [&](grpc::ServerContext* context, FakeAttention::Pieces* stream) {
      v1::StreamAttentionRequest piece;
      EXPECT_TRUE(stream->Read(&piece));
      EXPECT_EQ(piece.id(), 0U);
      stream->Write(AnswerTo(piece));
      piece.set_id(id);
      stream->Write(AnswerTo(piece));
      return WaitForItsEnd(context, stream);
    };
    Client client = One();
    TestRequest t(kEightPieces);
    const absl::Status status = Call(client, t.request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("piece ", id)));
  }
}

// Whatever ends the call ends it at every server.
TEST_P(StreamWaysTest, EachWayOutEndsAllStreams) {
  enum class Ending { kPieceFails, kStreamFails, kLate, kCancelled };
  for (const Ending ending : {Ending::kPieceFails, Ending::kStreamFails, Ending::kLate, Ending::kCancelled}) {
    SCOPED_TRACE(static_cast<int>(ending));
    first_.script = [ending](grpc::ServerContext* context, FakeAttention::Pieces* stream) {
      if (ending == Ending::kStreamFails) return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such model");
      if (ending == Ending::kPieceFails) {
        v1::StreamAttentionRequest piece;
        stream->Read(&piece);
        v1::StreamAttentionResponse response;
        response.set_id(piece.id());
        response.set_code(5);
        response.set_message("no such model");
        stream->Write(response);
      }
      return WaitForItsEnd(context, stream);
    };
    second_.script = WaitForItsEnd;
    Client client = Both();
    TestRequest t({4, 4, 4, 512, 512, 128, 128});
    CallOptions options;
    options.cancellation = std::make_shared<Cancellation>();
    if (ending == Ending::kLate) options.deadline = absl::Now() + absl::Milliseconds(200);
    std::thread canceller([&] {
      if (ending != Ending::kCancelled) return;
      EXPECT_TRUE(test::Becomes([&] { return first_.streams > 0 && second_.streams > 0; }));
      options.cancellation->Cancel();
    });
    const absl::Status status = Call(client, t.request, options).status();
    canceller.join();
    const absl::StatusCode expected = ending == Ending::kLate        ? absl::StatusCode::kDeadlineExceeded
                                      : ending == Ending::kCancelled ? absl::StatusCode::kCancelled
                                                                     : absl::StatusCode::kNotFound;
    EXPECT_EQ(status.code(), expected) << status;
    if (expected == absl::StatusCode::kNotFound) {
      EXPECT_EQ(status.message(), "no such model") << "the first error, not what followed from it";
    }
    EXPECT_TRUE(test::Becomes([&] { return first_.ended == first_.streams && second_.ended == second_.streams; }));
    EXPECT_EQ(options.cancellation->calls(), 0U);
  }
}

// A server that stops after it was sent pieces and answers none of them; the other one answers all.
TEST_P(StreamWaysTest, UnansweredPiecesOfALostServerGoToTheOther) {
  std::atomic<int> taken{0};
  second_.script = [&](grpc::ServerContext*, FakeAttention::Pieces* stream) {
    v1::StreamAttentionRequest piece;
    for (int i = 0; i < 2 && stream->Read(&piece); ++i) ++taken;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "stopping");
  };
  // The one that stays does not run out of pieces before the other one has gone.
  first_.script = [&](grpc::ServerContext* context, FakeAttention::Pieces* stream) {
    EXPECT_TRUE(test::Becomes([&] { return second_.streams > 0 && second_.ended == second_.streams; }));
    return AnswerAll(context, stream);
  };
  Client client = Both();
  TestRequest t({12, 4, 4, 512, 512, 128, 128});  // 48 pieces
  ExpectWhole(Call(client, t.request), t);
  EXPECT_GT(taken, 0);
}

// Pieces of a server that stops when the others have all of theirs and ask for none any more.
TEST_P(StreamWaysTest, PiecesThatComeBackTooLateFailTheCall) {
  std::atomic<int> drained{0};
  first_.script = [&](grpc::ServerContext* context, FakeAttention::Pieces* stream) {
    AnswerAll(context, stream);
    ++drained;
    EXPECT_TRUE(test::Becomes([&] { return second_.ended == second_.streams; }));
    return grpc::Status::OK;
  };
  second_.script = [&](grpc::ServerContext*, FakeAttention::Pieces* stream) {
    v1::StreamAttentionRequest piece;
    EXPECT_TRUE(stream->Read(&piece));
    EXPECT_TRUE(test::Becomes([&] { return first_.streams == 4 && drained == 4; }));
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "stopping");
  };
  Client client = Both();
  TestRequest t({12, 4, 4, 512, 512, 128, 128});  // 48 pieces over eight streams
  const absl::Status status = Call(client, t.request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

// While a stream asks, it sends nothing until it is let in.
TEST_P(StreamWaysTest, AStreamThatAsksSendsNothingBeforeItIsLetIn) {
  first_.script = [](grpc::ServerContext* context, FakeAttention::Pieces*) {
    context->AddTrailingMetadata("attnd-ask", "1");
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy");
  };
  Client client = One();
  TestRequest t(kEightPieces);
  EXPECT_TRUE(absl::IsResourceExhausted(Call(client, t.request).status()));
  for (const bool lets_in : {true, false}) {
    first_.script = [lets_in](grpc::ServerContext* context, FakeAttention::Pieces* stream) {
      EXPECT_EQ(context->client_metadata().count("attnd-asks"), 1U);
      v1::StreamAttentionRequest piece;
      auto read = std::async(std::launch::async, [&] { return stream->Read(&piece); });
      EXPECT_EQ(read.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout) << "before it was let in";
      if (lets_in) context->AddInitialMetadata("attnd-let-in", "1");
      stream->SendInitialMetadata();
      const bool sent = read.wait_for(std::chrono::milliseconds(lets_in ? 5000 : 200)) == std::future_status::ready;
      EXPECT_EQ(sent, lets_in);
      if (!sent) context->TryCancel();
      if (read.get()) stream->Write(AnswerTo(piece));
      return lets_in ? AnswerAll(context, stream) : grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy");
    };
    const absl::StatusOr<ComputeReply> reply = Call(client, t.request);
    if (lets_in) {
      ExpectWhole(reply, t);
    } else {
      EXPECT_FALSE(reply.ok());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(NowAndLater, StreamWaysTest, testing::Bool(),
                         [](const auto& run) { return run.param ? "Later" : "Now"; });

}  // namespace
}  // namespace attnd::client
