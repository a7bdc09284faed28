#include "server/serving/closing.h"

#include <atomic>
#include <memory>
#include <thread>

#include "gtest/gtest.h"
#include "rpc/one_call_server.h"
#include "wait.h"

namespace attnd::server {
namespace {

// A server whose calls are answered when the test wants it.
class ClosingTest : public testing::Test {
 protected:
  class Held final : public grpc::ServerUnaryReactor {
   public:
    void OnCancel() override { Answer(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }
    void Answer(const grpc::Status& status) {
      if (!answered_.exchange(true)) Finish(status);
    }

   private:
    std::atomic<bool> answered_{false};
  };

  // A call that has arrived.
  std::unique_ptr<OneCall> Begin() {
    held_ = nullptr;
    auto call = std::make_unique<OneCall>(server_);
    EXPECT_TRUE(test::Becomes([this] { return held_.load() != nullptr; }));
    return call;
  }

  std::atomic<Held*> held_{nullptr};
  OneCallServer server_{[this](grpc::CallbackServerContext&, grpc::ByteBuffer*) {
    auto* const held = new Held;
    held_ = held;
    return held;
  }};
};

TEST_F(ClosingTest, WithoutABeginNothingIsClosed) {
  {
    auto* const closing = new Closing;
    ASSERT_TRUE(closing->Start(server_.server()).ok());
    EXPECT_FALSE(closing->done());
    ASSERT_TRUE(test::Ends([closing] { delete closing; }));
  }
  { const Closing never_started; }
  const auto call = Begin();
  held_.load()->Answer(grpc::Status::OK);
  EXPECT_TRUE(call->Await().ok()) << "the server goes on";
}

TEST_F(ClosingTest, LastsUntilTheLastCallHasEnded) {
  Closing closing;
  ASSERT_TRUE(closing.Start(server_.server()).ok());
  const auto call = Begin();
  closing.Begin();
  // It has begun when new calls are refused.
  EXPECT_TRUE(test::Becomes([this] {
    held_ = nullptr;
    OneCall later(server_);
    while (!later.done() && held_.load() == nullptr) std::this_thread::yield();
    if (held_.load() != nullptr) held_.load()->Answer(grpc::Status::OK);
    return !later.Await().ok();
  })) << "the shutdown does not begin";
  EXPECT_FALSE(closing.done()) << "a call is in flight";
  EXPECT_FALSE(call->done());
  call->Cancel();
  EXPECT_TRUE(test::Becomes([&] { return closing.done(); }));
  EXPECT_TRUE(test::Ends([&] { closing.Await(); }));
}

TEST_F(ClosingTest, ItsEndAwaitsAShutdownThatHasBegun) {
  auto* const closing = new Closing;
  ASSERT_TRUE(closing->Start(server_.server()).ok());
  closing->Begin();
  ASSERT_TRUE(test::Ends([closing] { closing->Await(); }));
  EXPECT_TRUE(closing->done());
  ASSERT_TRUE(test::Ends([closing] { delete closing; }));
  EXPECT_FALSE(OneCall(server_).Await().ok());
}

}  // namespace
}  // namespace attnd::server
