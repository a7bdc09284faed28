// The intake decides at a call's headers whether to receive its message. It lets in a few calls at a time, in turns,
// and refuses those that would be late.
#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
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
using Clock = std::chrono::system_clock;

constexpr char kUnary[] = "/attnd.v1.AttentionService/ComputeAttention";
constexpr char kStream[] = "/attnd.v1.AttentionService/StreamAttention";

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

// A call that has sent its headers only; SendLast sends its message. The destructor cancels the call.
class OpenCall {
 public:
  OpenCall(const std::shared_ptr<grpc::Channel>& channel, const char* method, Clock::time_point deadline,
           bool asks = false) {
    context_.set_deadline(deadline);
    if (asks) context_.AddMetadata("attnd-asks", "1");
    call_ = grpc::GenericStub(channel).PrepareCall(&context_, method, &queue_);
    call_->StartCall(this);
    Await();
  }
  ~OpenCall() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) continue;
  }

  // Sends `message` as the last one. An empty `message` is not sent: the call ends its writes without one.
  void SendLast(const std::string& message = "") {
    if (!message.empty()) {
      call_->WriteLast(Bytes(message), grpc::WriteOptions(), this);
    } else {
      call_->WritesDone(this);
    }
    Await();
  }
  void Cancel() { context_.TryCancel(); }

  grpc::Status Finish() {
    grpc::Status status;
    grpc::ByteBuffer answer;
    call_->Read(&answer, this);
    if (Await()) call_->Read(&answer, this), Await();
    call_->Finish(&status, this);
    Await();
    return status;
  }
  // Waits for the server's initial metadata. Returns true if the server has let the call in.
  bool IsLetIn() {
    call_->ReadInitialMetadata(this);
    Await();
    return context_.GetServerInitialMetadata().count("attnd-let-in") != 0;
  }
  bool is_told_to_ask() const { return context_.GetServerTrailingMetadata().count("attnd-ask") != 0; }
  bool has_pushback() const { return context_.GetServerTrailingMetadata().count("grpc-retry-pushback-ms") > 0; }

 private:
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

Clock::time_point In(absl::Duration time) { return Clock::now() + absl::ToChronoNanoseconds(time); }
const absl::Duration kLong = absl::Minutes(10);

class IntakeTest : public testing::Test {
 protected:
  explicit IntakeTest(int max_reads = 1, absl::Duration stall = absl::InfiniteDuration()) {
    server::Options options = TestOptions();
    options.limits.max_request_bytes = 256 << 20;
    options.min_rate = std::int64_t{1} << 30;
    if (stall != absl::InfiniteDuration()) options.stall = stall;
    options.listen.push_back(absl::StrCat("unix:", testing::TempDir(), "intake_", getpid(), ".sock"));
    options.shared_memory = options.local_calls = false;
    options.limits.max_reads = max_reads;
    options.drain = kLong;
    server_ = std::make_unique<TestServer>(options);
  }

  v1::QueueUse Queue() {
    v1::GetServerInfoResponse info;
    grpc::ClientContext context;
    EXPECT_TRUE(server_->info().GetServerInfo(&context, {}, &info).ok());
    return info.queue();
  }

  // Begins this many calls that send no message. The first has a place at once, the others wait in line; each loses its
  // place after a quarter of a second.
  void Occupy(int calls, const char* method = kUnary, absl::Duration time = kLong) {
    for (int i = 0; i < calls; ++i) occupants_.emplace_back(server_->channel(), method, In(time));
    EXPECT_TRUE(Becomes([&] { return Queue().waiting() > 0; }));
    // Once one call has lost its place, the server knows how fast the line moves.
    const std::int64_t waiting = Queue().waiting();
    EXPECT_TRUE(Becomes([&] { return Queue().waiting() < waiting; }));
  }

  std::string Message() const { return ValidRequest().SerializeAsString(); }

  std::unique_ptr<TestServer> server_;
  std::deque<OpenCall> occupants_;
};

TEST_F(IntakeTest, ACallThatWouldBeLateIsRefusedWithoutItsMessage) {
  Occupy(60, kUnary, absl::Seconds(9));  // they take fifteen seconds and are due before `call`
  OpenCall call(server_->channel(), kUnary, In(absl::Seconds(10)));
  const grpc::Status status = call.Finish();  // without having sent a message
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  const v1::ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(detail.field(), "deadline");
  EXPECT_TRUE(detail.has_retry_delay());
  EXPECT_TRUE(call.has_pushback());
  EXPECT_EQ(Queue().refused(), 1);
}

TEST_F(IntakeTest, SoIsAStream) {
  Occupy(60, kStream, absl::Seconds(9));
  OpenCall call(server_->channel(), kStream, In(absl::Seconds(10)));
  const grpc::Status status = call.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(DetailOf(status).field(), "deadline");
  EXPECT_TRUE(call.has_pushback());
  EXPECT_TRUE(call.is_told_to_ask());
  EXPECT_EQ(Queue().refused(), 1);
  OpenCall asks(server_->channel(), kStream, In(absl::Seconds(10)), /*asks=*/true);
  EXPECT_FALSE(asks.IsLetIn());
  EXPECT_EQ(asks.Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(IntakeTest, AStreamThatAsksIsToldWhenItsTurnHasCome) {
  OpenCall first(server_->channel(), kStream, In(kLong), /*asks=*/true);
  EXPECT_TRUE(first.IsLetIn()) << "nobody is before it";
  OpenCall second(server_->channel(), kStream, In(kLong), /*asks=*/true);
  EXPECT_TRUE(second.IsLetIn()) << "after the first one's time";
  v1::StreamAttentionRequest piece;
  *piece.mutable_call() = ValidRequest();
  for (auto [bytes, from] : {std::pair{piece.mutable_q(), piece.mutable_call()->mutable_q()},
                             {piece.mutable_k(), piece.mutable_call()->mutable_k()},
                             {piece.mutable_v(), piece.mutable_call()->mutable_v()}}) {
    bytes->swap(*from);
  }
  second.SendLast(piece.SerializeAsString());
  const grpc::Status status = second.Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_FALSE(second.is_told_to_ask());
}

class ImpatientIntakeTest : public IntakeTest {
 protected:
  ImpatientIntakeTest() : IntakeTest(1, absl::Milliseconds(100)) {}
};

TEST_F(ImpatientIntakeTest, AMessageThatDoesNotComeEndsItsCall) {
  OpenCall call(server_->channel(), kUnary, In(kLong));
  const grpc::Status status = call.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("the request (268435456 bytes at most) did not arrive within 100ms"));
  EXPECT_EQ(server_->server().counters().stalled_reads, 1);
  EXPECT_EQ(server_->server().counters().stalled_writes, 0);
  EXPECT_TRUE(Becomes([&] { return server_->server().calls_in_flight() == 0; }));
}

class RoomyIntakeTest : public IntakeTest {
 protected:
  RoomyIntakeTest() : IntakeTest(1000) {}
};

// The negative control of the first two tests: with a place for every call, the same call is answered.
TEST_F(RoomyIntakeTest, WithRoomForAllItIsAnswered) {
  for (int i = 0; i < 60; ++i) occupants_.emplace_back(server_->channel(), kUnary, In(absl::Seconds(9)));
  OpenCall call(server_->channel(), kUnary, In(absl::Seconds(10)));
  call.SendLast(Message());
  const grpc::Status status = call.Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(Queue().waiting(), 0);
}

TEST_F(IntakeTest, ALineThatMovesServesAll) {
  Occupy(3);
  OpenCall call(server_->channel(), kUnary, In(kLong));
  call.SendLast(Message());
  const grpc::Status status = call.Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  for (OpenCall& occupant : occupants_) {
    occupant.SendLast(Message());
    EXPECT_TRUE(occupant.Finish().ok()) << "it was slow, and that is all";
  }
}

// To the server, calls over the Unix socket have another caller than calls over TCP.
TEST_F(IntakeTest, AnotherCallersLineHoldsNobodyUp) {
  Occupy(16);
  const auto channel = test::NewChannel(server_->server().addresses()[1]);
  OpenCall call(channel, kUnary, In(kLong));
  call.SendLast(Message());
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_GE(Queue().waiting(), 8);
}

TEST_F(IntakeTest, WhoIsCancelledInTheLineHoldsNothing) {
  Occupy(12);
  for (OpenCall& occupant : occupants_) occupant.Cancel();
  EXPECT_TRUE(Becomes([&] { return Queue().waiting() == 0 && server_->server().calls_in_flight() == 0; }));
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server_->Compute(ValidRequest(), &response).ok());
}

TEST_F(IntakeTest, ADeadlineInTheLineIsADeadline) {
  // No call is refused as late before the server knows the line's speed.
  for (int i = 0; i < 8; ++i) occupants_.emplace_back(server_->channel(), kStream, In(kLong));
  OpenCall call(server_->channel(), kStream, In(absl::Milliseconds(100)));
  const grpc::Status status = call.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED) << status.error_message();
  occupants_.clear();
  EXPECT_TRUE(Becomes([&] { return Queue().waiting() == 0; }));
}

TEST_F(IntakeTest, ACallWithoutAMessageIsToldSo) {
  OpenCall call(server_->channel(), kUnary, In(kLong));
  call.SendLast();
  const grpc::Status status = call.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("request: expected one message, got none"));
  EXPECT_EQ(server_->server().calls_in_flight(), 0);
}

// Stop ends calls whose messages do not arrive; it does not wait for them until the drain time is over.
TEST_F(IntakeTest, AServerThatStopsWaitsForNoMessageThatDoesNotCome) {
  Occupy(20);
  EXPECT_EQ(server_->server().Stop().cut_off, 0);
  for (OpenCall& occupant : occupants_) EXPECT_EQ(occupant.Finish().error_code(), StatusCode::UNAVAILABLE);
}

// The calls began before the stop, so they are answered.
TEST_F(IntakeTest, AServerThatStopsReceivesWhatWaits) {
  Occupy(3);
  std::thread stop([this] { EXPECT_EQ(server_->server().Stop().cut_off, 0); });
  for (OpenCall& occupant : occupants_) {
    occupant.SendLast(Message());
    const grpc::Status status = occupant.Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  stop.join();
}

}  // namespace
}  // namespace attnd::e2e
