// A session's stream over gRPC: servers that do not answer, break off or end it, and what is left at the server.
#include "client/src/grpc_session.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "attnd/v1/session.grpc.pb.h"
#include "bounded.h"
#include "fake_server.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::client {
namespace {

// Handles each stream as a test tells it to.
class ScriptedSessions : public attnd::v1::SessionService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<attnd::v1::SessionReply, attnd::v1::SessionRequest>;
  using Handler = std::function<grpc::Status(grpc::ServerContext*, Stream*)>;
  Handler handler;
  std::atomic<int> begun{0}, ended{0};

  grpc::Status Attend(grpc::ServerContext* context, Stream* stream) override {
    ++begun;
    const grpc::Status status = handler(context, stream);
    ++ended;
    return status;
  }
};

class GrpcSessionTest : public testing::Test {
 protected:
  using Stream = ScriptedSessions::Stream;

  GrpcSessionTest() { sessions_.handler = WaitForItsEnd; }

  // Says nothing until the client has gone.
  static grpc::Status WaitForItsEnd(grpc::ServerContext* context, Stream*) {
    EXPECT_TRUE(test::Becomes([&] { return context->IsCancelled(); })) << "the stream goes on at the server";
    return grpc::Status::CANCELLED;
  }
  std::shared_ptr<SessionStream> Start(const CallOptions& options = {}) {
    absl::StatusOr<std::shared_ptr<SessionStream>> stream = StartGrpcSession(channel_, options);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return *std::move(stream);
  }
  // A call of the client's that ends, if need be because the server ends.
  template <typename Call>
  auto Ends(const Call& call) {
    return Bounded(call, [this] { server_.reset(); });
  }
  static SessionRequest Opening() {
    SessionRequest request;
    request.layers.emplace_back().head_dim = 4;
    return request;
  }

  ScriptedSessions sessions_;
  std::unique_ptr<FakeServer> server_ = std::make_unique<FakeServer>(std::vector<grpc::Service*>{&sessions_});
  const std::shared_ptr<grpc::Channel> channel_ =
      grpc::CreateChannel(server_->target(), grpc::InsecureChannelCredentials());
};

TEST_F(GrpcSessionTest, AReplyIsWaitedForUntilTheDeadline) {
  std::shared_ptr<SessionStream> stream = Start();
  ASSERT_TRUE(stream->SendOpening(Opening()).ok());
  const absl::Time deadline = absl::Now() + absl::Milliseconds(100);
  stream->SetDeadline(deadline);
  const absl::Status status = Ends([&] { return stream->Receive().status(); });
  EXPECT_EQ(status, absl::DeadlineExceededError("the server did not answer in time"));
  EXPECT_GE(absl::Now(), deadline);
  EXPECT_EQ(stream->ended(), status);
  EXPECT_TRUE(test::Becomes([&] { return sessions_.ended == 1; })) << "the server goes on";
}

TEST_F(GrpcSessionTest, AReplyWithinItsTimeIsTaken) {
  sessions_.handler = [](grpc::ServerContext*, Stream* stream) {
    attnd::v1::SessionRequest request;
    while (stream->Read(&request)) {
      attnd::v1::SessionReply reply;
      reply.mutable_opened()->set_version(9);
      stream->Write(reply);
    }
    return grpc::Status::OK;
  };
  std::shared_ptr<SessionStream> stream = Start();
  for (int i = 0; i < 2; ++i) {
    stream->SetDeadline(i == 0 ? absl::Now() + absl::Seconds(30) : absl::InfiniteFuture());
    ASSERT_TRUE(stream->SendOpening(Opening()).ok());
    const absl::StatusOr<SessionAnswer> answer = Ends([&] { return stream->Receive(); });
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->opened->version, 9U);
  }
  EXPECT_TRUE(Ends([&] { return stream->Close(); }).ok());
  EXPECT_EQ(stream->ended().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(test::Becomes([&] { return sessions_.ended == 1; }));
}

// However a stream goes that the server still serves, the server hears of it, and nobody waits for the server.
TEST_F(GrpcSessionTest, EachWayInWhichAStreamGoesEndsItAtTheServer) {
  const std::function<void(std::shared_ptr<SessionStream>&, Cancellation&)> kWays[] = {
      [](std::shared_ptr<SessionStream>& stream, Cancellation&) { stream.reset(); },
      [](std::shared_ptr<SessionStream>& stream, Cancellation&) { stream->End(absl::AbortedError("mine")); },
      [](std::shared_ptr<SessionStream>& stream, Cancellation& cancellation) {
        cancellation.Cancel();
        EXPECT_EQ(stream->Receive().status().code(), absl::StatusCode::kCancelled);
      },
      [](std::shared_ptr<SessionStream>& stream, Cancellation&) {
        stream->SetDeadline(absl::Now() + absl::Milliseconds(50));
        EXPECT_EQ(stream->Receive().status().code(), absl::StatusCode::kDeadlineExceeded);
      },
      [](std::shared_ptr<SessionStream>& stream, Cancellation&) {
        stream->SetDeadline(absl::Now() + absl::Milliseconds(50));
        EXPECT_EQ(stream->Close().code(), absl::StatusCode::kDeadlineExceeded);
      },
  };
  int streams = 0;
  for (const auto& way : kWays) {
    CallOptions options;
    options.cancellation = std::make_shared<Cancellation>();
    std::shared_ptr<SessionStream> stream = Start(options);
    ASSERT_TRUE(test::Becomes([&] { return sessions_.begun == streams + 1; }));
    Ends([&] {
      way(stream, *options.cancellation);
      return 0;
    });
    EXPECT_TRUE(test::Becomes([&] { return sessions_.ended == streams + 1; })) << "way " << streams;
    if (stream != nullptr) {
      EXPECT_FALSE(stream->ended().ok()) << "way " << streams;
    }
    Ends([&] {
      stream.reset();
      return 0;
    });
    EXPECT_EQ(options.cancellation->calls(), 0U) << "way " << streams;
    ++streams;
  }
}

TEST_F(GrpcSessionTest, EndsWithTheServersReason) {
  struct Case {
    grpc::Status sent;
    absl::StatusCode code;
  };
  for (const Case& c : {Case{{grpc::StatusCode::ABORTED, "evicted"}, absl::StatusCode::kAborted},
                        Case{grpc::Status::OK, absl::StatusCode::kInternal}}) {
    sessions_.handler = [&](grpc::ServerContext*, Stream*) { return c.sent; };
    std::shared_ptr<SessionStream> stream = Start();
    const absl::Status status = Ends([&] { return stream->Receive().status(); });
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_EQ(stream->ended(), status);
    if (!c.sent.ok()) {
      EXPECT_EQ(status.message(), c.sent.error_message());
    }
  }
}

// gRPC's deadline would be the whole stream's.
TEST_F(GrpcSessionTest, TheOpeningsDeadlineIsNotTheStreams) {
  std::atomic<bool> limited{true};
  sessions_.handler = [&](grpc::ServerContext* context, Stream*) {
    limited = context->deadline() < std::chrono::system_clock::now() + std::chrono::hours(1000);
    return grpc::Status::OK;
  };
  CallOptions options;
  options.deadline = absl::Now() + absl::Seconds(30);
  std::shared_ptr<SessionStream> stream = Start(options);
  EXPECT_FALSE(Ends([&] { return stream->Receive().ok(); }));
  EXPECT_FALSE(limited);
}

// What the server takes in one message, if that is less than a message may have.
TEST_F(GrpcSessionTest, AStepIsAtMostWhatTheServerTakes) {
  std::atomic<std::int64_t> most{0};
  sessions_.handler = [&](grpc::ServerContext*, Stream* stream) {
    attnd::v1::SessionRequest request;
    while (stream->Read(&request)) {
      attnd::v1::SessionReply reply;
      if (request.has_open()) {
        reply.mutable_opened()->set_max_message_bytes(most);
      } else {
        reply.mutable_result()->set_step(request.step().step());
      }
      stream->Write(reply);
    }
    return grpc::Status::OK;
  };
  const std::vector<float> values(1024);
  StepRequest step;
  step.k = step.v = {values.data(), DType::kFp32, {1, 1, 16, 4}};
  const SessionLayer layer = Opening().layers[0];
  const StepSizes sizes = *SizesOf(step, layer);
  const auto whole = static_cast<std::int64_t>(EncodeStep(step, sizes, 1, 1 << 20)->Length());
  for (const std::int64_t limit : {whole, whole - 1, std::int64_t{0}, std::int64_t{1} << 40}) {
    most = limit;
    std::shared_ptr<SessionStream> stream = Start();
    ASSERT_TRUE(stream->SendOpening(Opening()).ok());
    ASSERT_TRUE(Ends([&] { return stream->Receive(); }).ok());
    const absl::Status sent = stream->SendStep(step, sizes, 1);
    EXPECT_EQ(sent.code(), limit == whole - 1 ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk) << limit;
    EXPECT_TRUE(stream->ended().ok()) << "nothing was sent";
    if (sent.ok()) {
      EXPECT_TRUE(Ends([&] { return stream->Receive(); }).ok());
    }
  }
}

}  // namespace
}  // namespace attnd::client
