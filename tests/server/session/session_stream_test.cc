// Sessions over gRPC: what the stream adds to its session.
#include "server/session/session_stream.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention/held_kernel.h"
#include "attnd/v1/session.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpc_calls.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/rpc/counters.h"
#include "server/session/service.h"
#include "session/session_calls.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using test::Becomes;

// A gRPC server on a port of its own that has SessionService alone.
class SessionStreamTest : public testing::Test {
 protected:
  void Start(const SessionOptions& options = {.grace = absl::Minutes(1)}, std::int64_t ledger_bytes = 1 << 30,
             const StallLimit& stall = {}) {
    ledger_ = std::make_unique<memory::Ledger>(memory::Ledger::Options{.total = ledger_bytes, .shares = false});
    stalls_ = std::make_unique<StallWatch>(stall, counters_, [](const std::string&) {});
    engine_ = std::make_unique<AttentionEngine>(Limits(), registry_, kernel_.kernel(), 1, nullptr, ledger_.get());
    service_ = std::make_unique<SessionService>(*engine_, registry_, gate_, *stalls_, options);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.SetMaxReceiveMessageSize(-1);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // windows stay small
    channel_ = test::NewChannel("127.0.0.1:" + std::to_string(port), arguments);
    stub_ = v1::SessionService::NewStub(channel_);
  }
  ~SessionStreamTest() override {
    kernel_.Release();
    if (server_ == nullptr) return;
    service_->EndAll();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    service_->EndAll();  // parked by the shutdown
    EXPECT_TRUE(Becomes([&] { return service_->use().open == 0; }));
    // It waits for all sessions to leave it.
    if (HasFailure() && service_->use().open > 0) static_cast<void>(service_.release());  // NOLINT
  }

  // One stream, which is given up after some time.
  class Call {
   public:
    explicit Call(v1::SessionService::Stub& stub) {
      context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
      stream_ = stub.Attend(&context_);
    }
    ~Call() {
      if (!finished_) context_.TryCancel(), static_cast<void>(Finish());
    }
    bool Write(const v1::SessionRequest& request) { return stream_->Write(request); }
    v1::SessionReply Read() {
      v1::SessionReply reply;
      EXPECT_TRUE(stream_->Read(&reply)) << "the stream has ended";
      return reply;
    }
    v1::SessionOpened Open(const v1::SessionRequest& request) {
      EXPECT_TRUE(Write(request));
      return Read().opened();
    }
    void Cancel() { context_.TryCancel(); }
    void HalfClose() { stream_->WritesDone(); }
    grpc::Status Finish() {
      finished_ = true;
      v1::SessionReply ignored;
      while (stream_->Read(&ignored)) {
      }
      return stream_->Finish();
    }
    // Of the end.
    std::string Trailer(const std::string& name) const {
      const auto found = context_.GetServerTrailingMetadata().find(name);
      return found == context_.GetServerTrailingMetadata().end()
                 ? "none"
                 : std::string(found->second.data(), found->second.size());
    }

   private:
    grpc::ClientContext context_;
    std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> stream_;
    bool finished_ = false;
  };

  std::int64_t Held(const std::string& peer) { return ledger_->AccountOf(peer)->held_bytes(); }

  HeldKernel kernel_;
  model::Registry registry_{model::RegistryOptions{}};
  Counters counters_;
  CallGate gate_;
  std::unique_ptr<memory::Ledger> ledger_;
  std::unique_ptr<StallWatch> stalls_;
  std::unique_ptr<AttentionEngine> engine_;
  std::unique_ptr<SessionService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SessionService::Stub> stub_;
};

v1::SessionOpen WithGrace(v1::SessionOpen open) {
  open.mutable_grace()->set_seconds(30);
  return open;
}

TEST_F(SessionStreamTest, AnIdleSessionHoldsWhatItReservedAndNothingElse) {
  Start();
  Call call(*stub_);
  const v1::SessionOpen open = PlainOpen(2, 0, 2000);
  const std::int64_t reserved = call.Open(OpeningOf(open)).reserved_bytes();
  EXPECT_EQ(Held("sessions of 127.0.0.1"), reserved);
  for (const std::uint64_t number : {1U, 2U}) {
    EXPECT_TRUE(call.Write(PlainStep(open, number, 200, 200)));
    EXPECT_EQ(call.Read().result().code(), 0);
    EXPECT_TRUE(Becomes([&] { return Held("127.0.0.1") == 0; })) << "its answer is charged after it was written";
  }
  EXPECT_EQ(engine_->inflight_bytes(), reserved);
  EXPECT_EQ(gate_.inside(), 1);
  call.HalfClose();
  EXPECT_TRUE(call.Finish().ok());
  EXPECT_EQ(engine_->inflight_bytes(), 0) << "when its end is seen";
  EXPECT_TRUE(Becomes([&] { return gate_.inside() == 0; }));
}

TEST_F(SessionStreamTest, ABrokenStreamIsALossAndAHalfCloseToo) {
  Start();
  for (const bool computes : {false, true}) {
    for (const bool half : {false, true}) {
      SCOPED_TRACE(std::to_string(computes) + std::to_string(half));
      const v1::SessionOpen open = WithGrace(PlainOpen(2, 0, 2000));
      auto call = std::make_unique<Call>(*stub_);
      const v1::SessionOpened opened = call->Open(OpeningOf(open));
      if (computes) {
        kernel_.Hold();
        EXPECT_TRUE(call->Write(PlainStep(open, 1, 1024, 1024)));
        EXPECT_TRUE(kernel_.AwaitHeld());
      }
      if (half) {
        call->HalfClose();
      } else {
        call->Cancel();
      }
      if (computes && !half) {
        EXPECT_TRUE(Becomes([&] { return gate_.inside() == 1; }));
        EXPECT_EQ(call->Finish().error_code(), StatusCode::CANCELLED);
      }
      kernel_.Release();
      if (half) {
        EXPECT_TRUE(call->Finish().ok());
      }
      call.reset();
      EXPECT_TRUE(Becomes([&] { return gate_.inside() == 0; }));
      EXPECT_EQ(engine_->inflight_bytes(), opened.reserved_bytes());
      EXPECT_EQ(service_->use().open, 1);
      Call resumed(*stub_);
      const v1::SessionOpened again = resumed.Open(ResumptionOf(opened.resume_token()));
      EXPECT_EQ(again.resume_token(), opened.resume_token());
      EXPECT_EQ(again.last_step(), computes && half ? 1U : 0U);
      v1::SessionRequest close;
      close.mutable_close();
      EXPECT_TRUE(resumed.Write(close));
      EXPECT_TRUE(resumed.Finish().ok());
      EXPECT_EQ(engine_->inflight_bytes(), 0);
    }
  }
}

TEST_F(SessionStreamTest, OneThatFindsNoMemoryIsToldWhenToComeBack) {
  Start({.lease = absl::InfiniteDuration()}, 3 << 20);
  const v1::SessionOpen open = PlainOpen(2, 0, 8000);
  Call first(*stub_);
  const std::int64_t reserved = first.Open(OpeningOf(open)).reserved_bytes();
  ASSERT_GT(reserved, (3 << 20) / 2);
  Call second(*stub_);
  EXPECT_TRUE(second.Write(OpeningOf(open)));
  EXPECT_EQ(second.Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(second.Trailer("grpc-retry-pushback-ms"), "none");
  EXPECT_EQ(engine_->inflight_bytes(), reserved);
  EXPECT_TRUE(Becomes([&] { return gate_.inside() == 1; }));
}

TEST_F(SessionStreamTest, OneTooManyAndOneThatComesToAStopAreRefused) {
  Start({.most = 1});
  Call first(*stub_);
  first.Open(OpeningOf(PlainOpen()));
  {
    Call second(*stub_);
    EXPECT_EQ(second.Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  }
  EXPECT_EQ(gate_.inside(), 1) << "whoever is refused is in no gate";
  gate_.Close();
  Call third(*stub_);
  EXPECT_EQ(third.Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(gate_.inside(), 1);
}

// Answers larger than what the connection takes.
TEST_F(SessionStreamTest, OneWhoseAnswersAreNotReadIsEnded) {
  Start({.grace = absl::Minutes(1)}, 1 << 30, {.patience = absl::Milliseconds(100), .bytes_per_second = 1 << 30});
  v1::SessionOpen open = PlainOpen(1, 0, 10);
  open.mutable_layers(0)->set_value_head_dim(4096);
  Call call(*stub_);
  call.Open(OpeningOf(open));
  v1::SessionRequest step = PlainStep(open, 1, 1, 256);  // an answer of 8 MiB
  EXPECT_TRUE(call.Write(step));
  EXPECT_TRUE(Becomes([&] { return gate_.inside() == 0; })) << "it waits for its reader";
  EXPECT_EQ(engine_->inflight_bytes(), 0);
  EXPECT_EQ(counters_.stalled_writes.load(), 1);
  EXPECT_FALSE(call.Finish().ok());
}

// Nothing is being written while it is idle.
TEST_F(SessionStreamTest, OneWhoseAnswersAreReadMayBeIdle) {
  Start({}, 1 << 30, {.patience = absl::Milliseconds(100), .bytes_per_second = 1 << 30});
  Call call(*stub_);
  call.Open(OpeningOf(PlainOpen()));
  for (const std::uint64_t number : {1U, 2U}) {
    EXPECT_TRUE(call.Write(PlainStep(PlainOpen(), number, 1, 1)));
    EXPECT_EQ(call.Read().result().code(), 0);
    absl::SleepFor(absl::Milliseconds(300));  // the watch's time, and what it may be late
  }
  EXPECT_EQ(counters_.stalled_writes.load(), 0);
  call.HalfClose();
  EXPECT_TRUE(call.Finish().ok());
}

TEST_F(SessionStreamTest, OneThatIsNotReadIsTakenByAnotherConnection) {
  Start();
  v1::SessionOpen open = WithGrace(PlainOpen(1, 0, 10));
  open.mutable_layers(0)->set_value_head_dim(4096);
  Call call(*stub_);
  const v1::SessionOpened opened = call.Open(OpeningOf(open));
  EXPECT_TRUE(call.Write(PlainStep(open, 1, 1, 256)));
  EXPECT_TRUE(Becomes([&] { return Held("127.0.0.1") == 2 * 256 * 4096 * 4; })) << "its answer is being written";
  EXPECT_TRUE(Becomes([&] {
    Call resumed(*stub_);
    EXPECT_TRUE(resumed.Write(ResumptionOf(opened.resume_token())));
    const grpc::Status status = [&] {
      resumed.HalfClose();
      return resumed.Finish();
    }();
    return status.error_code() != StatusCode::UNAVAILABLE;
  })) << "the first connection keeps it";
  EXPECT_TRUE(Becomes([&] { return Held("127.0.0.1") == 0; }));
}

TEST_F(SessionStreamTest, OperatorsListAndEvict) {
  Start();
  Call first(*stub_), second(*stub_);
  first.Open(OpeningOf(PlainOpen(3)));
  second.Open(OpeningOf(PlainOpen(4)));
  const auto list = [&] {
    grpc::ClientContext context;
    v1::ListSessionsResponse listed;
    EXPECT_TRUE(stub_->ListSessions(&context, {}, &listed).ok());
    return listed;
  };
  const v1::ListSessionsResponse listed = list();
  ASSERT_EQ(listed.sessions_size(), 2);
  EXPECT_EQ(listed.sessions(0).rows(), 3);
  EXPECT_EQ(listed.sessions(1).rows(), 4);
  EXPECT_THAT(listed.sessions(0).peer(), testing::StartsWith("ipv4:127.0.0.1:"));
  for (const bool again : {false, true}) {
    grpc::ClientContext context;
    v1::EvictSessionRequest request;
    v1::EvictSessionResponse response;
    request.set_id(listed.sessions(0).id());
    EXPECT_EQ(stub_->EvictSession(&context, request, &response).error_code(),
              again ? StatusCode::NOT_FOUND : StatusCode::OK);
    if (again) continue;
    EXPECT_EQ(first.Finish().error_code(), StatusCode::ABORTED);
  }
  EXPECT_EQ(list().sessions_size(), 1);
}

}  // namespace
}  // namespace attnd::server
