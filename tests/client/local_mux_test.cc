// Many calls on one connection: limits and one more, what each way out of a call gives back, and what a lost connection
// leaves to the next one.
#include "client/src/local_mux.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attnd/v1/local.pb.h"
#include "fake_local_server.h"
#include "gtest/gtest.h"
#include "temp_folder.h"
#include "test_request.h"
#include "wait.h"

namespace attnd::client {
namespace {

using Peer = FakeLocalServer::Peer;
using Started = LocalMux::Started;

using test::Becomes;

// A call and what became of it.
struct Asked {
  Started started;
  std::shared_ptr<Cancellation> cancellation;
  std::future<absl::StatusOr<ComputeReply>> reply;

  // The code of the call's end; UNKNOWN, and a failure, if it does not end.
  absl::StatusCode Code() {
    EXPECT_EQ(started, Started::kYes);
    if (started == Started::kYes && reply.wait_for(std::chrono::seconds(10)) == std::future_status::ready) {
      return reply.get().status().code();
    }
    ADD_FAILURE() << "the call has not ended";
    return absl::StatusCode::kUnknown;
  }
};

class LocalMuxTest : public testing::Test {
 protected:
  LocalMuxTest() { Offer(kMaxCalls); }
  ~LocalMuxTest() override { mux_->Stop(); }

  void Offer(std::uint32_t max_calls, std::uint32_t max_message_bytes = 65536) {
    server_.OnHello([=](const Peer& peer, const v1::LocalRequest&) {
      v1::LocalWelcome welcome;
      welcome.set_max_calls(max_calls);
      welcome.set_max_message_bytes(max_message_bytes);
      return FakeLocalServer::Welcome(peer, welcome);
    });
  }
  // Whether Settle returns or calls back in time.
  bool Settle() {
    const auto settled = std::make_shared<absl::Notification>();
    return mux_->Settle(absl::InfiniteFuture(), [settled] { settled->Notify(); }) ||
           settled->WaitForNotificationWithTimeout(absl::Seconds(10));
  }
  void Connect() {
    ASSERT_TRUE(Settle());
    ASSERT_TRUE(Becomes([this] { return mux_->Offered(); }));
  }

  Asked Ask(absl::Duration time = absl::InfiniteDuration(), std::shared_ptr<Cancellation> cancellation = nullptr) {
    return Ask(t_.request, shape_, time, std::move(cancellation));
  }
  Asked Ask(const ComputeRequest& request, const Shape& shape, absl::Duration time = absl::InfiniteDuration(),
            std::shared_ptr<Cancellation> cancellation = nullptr) {
    Asked asked;
    asked.cancellation = cancellation != nullptr ? std::move(cancellation) : std::make_shared<Cancellation>();
    CallOptions options;
    options.deadline = absl::Now() + time;
    options.cancellation = asked.cancellation;
    const auto promise = std::make_shared<std::promise<absl::StatusOr<ComputeReply>>>();
    asked.reply = promise->get_future();
    asked.started = mux_->Start(request, shape, {}, options, [promise](absl::StatusOr<ComputeReply> reply) {
      promise->set_value(std::move(reply));
    });
    return asked;
  }

  // From now on calls are kept, and not answered.
  void Keep() {
    server_.OnCall([this](const Peer& peer, const v1::LocalRequest& request) {
      absl::MutexLock lock(&mutex_);
      kept_.emplace_back(peer, request);
      return true;
    });
  }
  std::size_t kept() {
    absl::MutexLock lock(&mutex_);
    return kept_.size();
  }
  void AnswerKept() {
    absl::MutexLock lock(&mutex_);
    for (const auto& [peer, request] : kept_) FakeLocalServer::Answer(peer, request);
    kept_.clear();
  }
  void ForgetKept() {
    absl::MutexLock lock(&mutex_);
    kept_.clear();
  }

  static constexpr std::uint32_t kMaxCalls = 4;
  const test::TempFolder folder_;
  const TestRequest t_;
  const Shape shape_ = *CheckRequest(t_.request);
  absl::Mutex mutex_;
  std::vector<std::pair<Peer, v1::LocalRequest>> kept_ ABSL_GUARDED_BY(mutex_);
  FakeLocalServer server_{folder_.path() + "/s"};
  std::shared_ptr<LocalMux> mux_ = std::make_shared<LocalMux>(folder_.path() + "/s", "test",
                                                              Keepalive{std::chrono::hours(1), std::chrono::hours(1)});
};

// The server counts a call until it has answered it, also one that has ended here.
TEST_F(LocalMuxTest, EachWayOutOfACallGivesItsPlaceBack) {
  Connect();
  struct Way {
    const char* name;
    absl::StatusCode code;
    std::function<Asked()> ask;
    std::function<void(Asked&)> end;
  };
  const auto refuse = [](const Peer& peer, const v1::LocalRequest& request) {
    v1::LocalReply reply;
    reply.mutable_answer()->set_id(request.call().id());
    reply.mutable_answer()->set_code(5);
    return FakeLocalServer::Send(peer, reply.SerializeAsString());
  };
  const auto cancelled = std::make_shared<Cancellation>();
  cancelled->Cancel();
  const Way kWays[] = {
      {"answered", absl::StatusCode::kOk, [this] { return Ask(); }, [this](Asked&) { AnswerKept(); }},
      {"refused", absl::StatusCode::kNotFound,
       [&] {
         server_.OnCall(refuse);
         return Ask();
       },
       [](Asked&) {}},
      {"late", absl::StatusCode::kDeadlineExceeded, [this] { return Ask(absl::Milliseconds(20)); }, [](Asked&) {}},
      {"late at its beginning", absl::StatusCode::kDeadlineExceeded, [this] { return Ask(-absl::Seconds(1)); },
       [](Asked&) {}},
      {"cancelled", absl::StatusCode::kCancelled, [this] { return Ask(); },
       [](Asked& asked) { asked.cancellation->Cancel(); }},
      {"cancelled before it began", absl::StatusCode::kCancelled,
       [&] { return Ask(absl::InfiniteDuration(), cancelled); }, [](Asked&) {}},
  };
  for (const Way& way : kWays) {
    Keep();
    const int cancels = server_.cancels;
    // One call stays under way and is answered in the end: nothing that happens to the other one harms it.
    Asked other = Ask();
    ASSERT_TRUE(Becomes([this] { return kept() == 1; })) << way.name;
    Asked asked = way.ask();
    ASSERT_EQ(asked.started, Started::kYes) << way.name;
    ASSERT_TRUE(way.code == absl::StatusCode::kNotFound || Becomes([this] { return kept() == 2; })) << way.name;
    way.end(asked);
    EXPECT_EQ(asked.Code(), way.code) << way.name;
    EXPECT_EQ(asked.cancellation->calls(), 0U) << way.name;
    const bool early = way.code == absl::StatusCode::kDeadlineExceeded || way.code == absl::StatusCode::kCancelled;
    ASSERT_TRUE(Becomes([&] { return server_.cancels == cancels + (early ? 1 : 0); })) << way.name;
    AnswerKept();
    EXPECT_EQ(other.Code(), absl::StatusCode::kOk) << way.name;
    EXPECT_EQ(other.cancellation->calls(), 0U) << way.name;
    // The answer to the one that ended early may not have been received yet.
    Keep();
    std::vector<Asked> all;
    ASSERT_TRUE(Becomes([&] {
      Asked next = Ask();
      if (next.started == Started::kYes) all.push_back(std::move(next));
      return all.size() == kMaxCalls;
    })) << way.name
        << ": " << all.size() << " places of " << kMaxCalls;
    Asked one_more = Ask();
    EXPECT_EQ(one_more.started, Started::kNoRoom) << way.name;
    EXPECT_EQ(one_more.cancellation->calls(), 0U) << way.name;
    ASSERT_TRUE(Becomes([this] { return kept() == kMaxCalls; })) << way.name;
    AnswerKept();
    for (Asked& each : all) EXPECT_EQ(each.Code(), absl::StatusCode::kOk) << way.name;
    EXPECT_EQ(server_.connections, 1) << way.name;
  }
}

TEST_F(LocalMuxTest, AnExpiredCallHoldsItsPlaceUntilItsAnswerComes) {
  Connect();
  Keep();
  std::vector<Asked> late;
  for (std::uint32_t i = 0; i < kMaxCalls; ++i) late.push_back(Ask(absl::Milliseconds(20)));
  for (Asked& asked : late) EXPECT_EQ(asked.Code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(Becomes([this] { return kept() == kMaxCalls; }));
  EXPECT_EQ(Ask().started, Started::kNoRoom);
  AnswerKept();
  Asked next;
  EXPECT_TRUE(Becomes([&] { return (next = Ask()).started == Started::kYes; }));
}

// A call and its answer must each fit into a message.
TEST_F(LocalMuxTest, TheLargestMessageAndTheLargestAnswer) {
  struct Case {
    Sizes sizes;
    bool log_sum_exp;
  };
  for (const Case& c : {Case{{1, 1, 1, 1, 1, 2304, 1}, false}, Case{{1, 1, 1, 1, 1, 1, 2304}, false},
                        Case{{1, 1, 1, 288, 1, 2, 6}, false}, Case{{1, 1, 1, 1152, 1, 1, 1}, true}}) {
    TestRequest t(c.sizes);
    t.request.return_log_sum_exp = c.log_sum_exp;
    const Shape shape = *CheckRequest(t.request);
    LocalMessage message(t.request, shape, {});
    message.Address(1, absl::InfiniteDuration());
    const auto most = static_cast<std::uint32_t>(std::max(message.size(), message.answer_size()));
    for (const bool fits : {true, false}) {
      Offer(kMaxCalls, most - (fits ? 0 : 1));
      mux_->Stop();
      mux_ = std::make_shared<LocalMux>(folder_.path() + "/s", "test",
                                        Keepalive{std::chrono::hours(1), std::chrono::hours(1)});
      Connect();
      server_.OnCall(FakeLocalServer::Answer);
      Asked asked = Ask(t.request, shape);
      EXPECT_EQ(asked.started, fits ? Started::kYes : Started::kNoRoom);
      if (fits) {
        EXPECT_EQ(asked.Code(), absl::StatusCode::kOk);
      }
    }
  }
}

// Calls with deadlines and messages that wait for room in the socket are not the next connection's.
TEST_F(LocalMuxTest, ALostConnectionLeavesNothingToTheNext) {
  TestRequest large({1, 1, 1, 32, 64, 64, 32});
  const Shape shape = *CheckRequest(large.request);
  Offer(256);
  Connect();
  for (int round = 0; round < 2; ++round) {
    absl::Notification go_on;
    // The server reads nothing more.
    server_.OnCall([&](const Peer&, const v1::LocalRequest&) {
      EXPECT_TRUE(test::Comes(go_on));
      return false;
    });
    std::vector<Asked> lost;
    for (int i = 0; i < 100; ++i) lost.push_back(Ask(large.request, shape, absl::Milliseconds(400)));
    server_.HangUp();
    for (Asked& asked : lost) {
      EXPECT_EQ(asked.Code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(asked.cancellation->calls(), 0U);
    }
    const int calls = server_.calls;
    server_.OnCall(FakeLocalServer::Answer);
    go_on.Notify();
    EXPECT_EQ(Ask().started, Started::kBroken);
    Connect();
    EXPECT_EQ(Ask().Code(), absl::StatusCode::kOk);
    EXPECT_EQ(server_.calls, calls + 1) << "messages of lost calls were sent";
    absl::SleepFor(absl::Milliseconds(450));  // past the deadlines of the lost calls
    EXPECT_EQ(Ask().Code(), absl::StatusCode::kOk);
    EXPECT_EQ(server_.connections, 2 + round);
  }
}

TEST_F(LocalMuxTest, ACallThatIsNotStartedLeavesNothingAtItsCancellation) {
  Asked asked = Ask();
  EXPECT_EQ(asked.started, Started::kBroken) << "not connected";
  EXPECT_EQ(asked.cancellation->calls(), 0U);
}

TEST_F(LocalMuxTest, StopEndsWaitingCallersAndTheConnection) {
  server_.OnHello([](const Peer&, const v1::LocalRequest&) { return true; });
  absl::Notification settled;
  ASSERT_FALSE(mux_->Settle(absl::InfiniteFuture(), [&] { settled.Notify(); }));
  mux_->Stop();
  EXPECT_TRUE(settled.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_TRUE(mux_->Settle(absl::InfiniteFuture(), [] { ADD_FAILURE() << "called although Settle returned true"; }));
  EXPECT_FALSE(mux_->Offered());
  EXPECT_TRUE(Becomes([&] { return server_.standing == 0; }));
}

// Rests after each kind of failure; the callers who ask meanwhile are not kept waiting.
TEST_F(LocalMuxTest, NoNewAttemptWhileItRests) {
  struct Case {
    const char* name;
    FakeLocalServer::Handler hello;
    bool rests_long;
  };
  const Case kCases[] = {
      {"refused", [](const Peer& peer, const v1::LocalRequest&) { return FakeLocalServer::Send(peer, "garbage"); },
       true},
      {"silent", [](const Peer&, const v1::LocalRequest&) { return true; }, true},
      {"closed", [](const Peer&, const v1::LocalRequest&) { return false; }, false},
  };
  std::vector<std::unique_ptr<FakeLocalServer>> servers;
  std::vector<std::shared_ptr<LocalMux>> muxes;
  for (const Case& c : kCases) {
    const std::string path = folder_.path() + "/" + c.name;
    servers.push_back(std::make_unique<FakeLocalServer>(path));
    servers.back()->OnHello(c.hello);
    muxes.push_back(std::make_shared<LocalMux>(path, "test", Keepalive{std::chrono::hours(1), std::chrono::hours(1)}));
    absl::Notification settled;
    ASSERT_FALSE(muxes.back()->Settle(absl::InfiniteFuture(), [&] { settled.Notify(); })) << c.name;
    ASSERT_TRUE(settled.WaitForNotificationWithTimeout(absl::Seconds(10))) << c.name;
    // The caller may be told a moment before the attempt is given up.
    EXPECT_TRUE(
        Becomes([&] { return muxes.back()->Settle(absl::Now() + absl::Milliseconds(1), [] {}); }, absl::Seconds(5)))
        << c.name;
    EXPECT_EQ(servers.back()->connections, 1) << c.name;
    servers.back()->OnHello(FakeLocalServer::Greet);
  }
  absl::SleepFor(absl::FromChrono(LocalMux::kRest) + absl::Milliseconds(50));
  for (std::size_t i = 0; i < muxes.size(); ++i) {
    muxes[i]->Settle(absl::InfiniteFuture(), [] {});
    if (kCases[i].rests_long) {
      EXPECT_FALSE(Becomes([&] { return servers[i]->connections > 1; }, absl::Milliseconds(100))) << kCases[i].name;
    } else {
      EXPECT_TRUE(Becomes([&] { return muxes[i]->Offered(); }, absl::Seconds(10))) << kCases[i].name;
    }
    muxes[i]->Stop();
  }
}

}  // namespace
}  // namespace attnd::client
