// A call without an answer fails its test, whatever kind of call it is.

#include "grpc_calls.h"

#include <atomic>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::test {
namespace {

// Answers each message with itself, or no call ever. Its calls end when they are cancelled.
class Service : public grpc::CallbackGenericService {
 public:
  explicit Service(bool mute) : mute_(mute) {}

 private:
  class Call : public grpc::ServerGenericBidiReactor {
   public:
    explicit Call(bool mute) {
      if (!mute) StartRead(&message_);
    }
    void OnReadDone(bool ok) override {
      if (ok) return StartWrite(&message_);
      End(grpc::Status::OK);
    }
    void OnWriteDone(bool ok) override {
      if (ok) StartRead(&message_);
    }
    void OnCancel() override { End(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }

   private:
    void End(const grpc::Status& status) {
      if (!ended_.exchange(true)) Finish(status);
    }

    grpc::ByteBuffer message_;
    std::atomic<bool> ended_{false};
  };

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new Call(mute_);
  }

  const bool mute_;
};

class GrpcCallsTest : public testing::Test {
 protected:
  explicit GrpcCallsTest(bool mute = false) : service_(mute) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~GrpcCallsTest() override { server_->Shutdown(); }

  static grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel, absl::Duration timeout = absl::Hours(1)) {
    const grpc::Slice slice("bytes");
    grpc::ByteBuffer reply;
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    return RawCall(channel, "/service/Method", context, grpc::ByteBuffer(&slice, 1), &reply);
  }

  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

class MuteServerTest : public GrpcCallsTest {
 protected:
  MuteServerTest() : GrpcCallsTest(true) {}
};

TEST_F(MuteServerTest, ACallWithoutAnAnswerFailsTheTestAndEnds) {
  const auto channel = NewChannel(address_, absl::Milliseconds(100));
  grpc::Status status;
  EXPECT_NONFATAL_FAILURE_ON_ALL_THREADS(status = Call(channel), "/service/Method: still runs after 100ms");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(MuteServerTest, ACallThatItsCallerEndsFailsNothing) {
  const auto channel = NewChannel(address_, absl::Milliseconds(200));
  EXPECT_EQ(Call(channel, absl::Milliseconds(20)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  absl::SleepFor(absl::Milliseconds(400));  // beyond the channel's time, which is over for this call
}

TEST_F(GrpcCallsTest, CallsThatEndFailNothing) {
  const auto channel = NewChannel(address_, absl::Seconds(20));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Call(channel).ok());
}

// The server of an expired call is told, too.
TEST_F(GrpcCallsTest, AStreamThatGoesOnForTooLongFailsTheTest) {
  const auto channel = NewChannel(address_, absl::Milliseconds(100));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  const auto stream = grpc::GenericStub(channel).PrepareCall(&context, "/service/Method", &queue);
  grpc::ByteBuffer reply;
  grpc::Status status;
  const auto read = [&] {
    void* tag = nullptr;
    bool ok = false;
    stream->StartCall(nullptr);
    queue.Next(&tag, &ok);
    stream->Read(&reply, nullptr);  // which nothing answers
    queue.Next(&tag, &ok);
    stream->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
  };
  EXPECT_NONFATAL_FAILURE_ON_ALL_THREADS(read(), "/service/Method: still runs after 100ms");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace attnd::test
