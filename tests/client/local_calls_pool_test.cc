// The connections for calls: whichever way one goes, its place is free again; how long the client rests after each kind
// of failure; and which connections are kept.
#include "client/src/local_calls.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attnd/v1/local.pb.h"
#include "fake_local_server.h"
#include "gtest/gtest.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::client {
namespace {

using Peer = FakeLocalServer::Peer;
using Clock = LocalCalls::Clock;
using Connection = std::shared_ptr<LocalConnection>;

using test::Becomes;

constexpr Clock::duration kTick = std::chrono::nanoseconds(1);

bool Refuse(const Peer&, const v1::LocalRequest&) { return false; }
bool SayNothing(const Peer&, const v1::LocalRequest&) { return true; }

CallOptions Soon() {
  CallOptions options;
  options.deadline = absl::Now() + absl::Milliseconds(5);
  return options;
}

class LocalCallsPoolTest : public testing::Test {
 protected:
  // The socket is gone from its path, or there again.
  void Hide() const { ASSERT_EQ(std::rename(path_.c_str(), (path_ + ".hidden").c_str()), 0); }
  void Show() const { ASSERT_EQ(std::rename((path_ + ".hidden").c_str(), path_.c_str()), 0); }

  // Whether a call would try to connect now.
  bool Tries() {
    const int before = server_.connections;
    server_.OnHello(FakeLocalServer::Greet);
    Connection connection = calls_.Take({});
    if (connection == nullptr) return false;
    calls_.Drop(std::move(connection));
    return Becomes([&] { return server_.connections == before + 1; });
  }
  // As many as there may be, and one more, which is refused.
  void ExpectAllPlacesFree(const std::string& after) {
    std::vector<Connection> taken;
    for (std::size_t i = 0; i < LocalCalls::kMaxConnections; ++i) {
      taken.push_back(calls_.Take({}));
      ASSERT_NE(taken.back(), nullptr) << after << ": only " << i << " of " << LocalCalls::kMaxConnections;
    }
    EXPECT_EQ(calls_.Take({}), nullptr) << after << ": more than promised";
    for (Connection& connection : taken) calls_.Drop(std::move(connection));
  }

  const test::TempFolder folder_;
  const std::string path_ = folder_.path() + "/s";
  FakeLocalServer server_{path_};
  Clock::time_point now_ = Clock::now();
  LocalCalls calls_{path_, "test", {std::chrono::hours(1), std::chrono::hours(1)}, [this] { return now_; }};
};

TEST_F(LocalCallsPoolTest, EachWayInWhichAConnectionGoesFreesItsPlace) {
  const auto fails = [this](FakeLocalServer::Handler hello, const CallOptions& options) {
    server_.OnHello(std::move(hello));
    EXPECT_EQ(calls_.Take(options), nullptr);
    EXPECT_EQ(calls_.Connect(options), nullptr);
    now_ += LocalCalls::kRestAfterRefusal;
    server_.OnHello(FakeLocalServer::Greet);
  };
  CallOptions cancelled;
  cancelled.cancellation = std::make_shared<Cancellation>();
  cancelled.cancellation->Cancel();
  const std::vector<std::pair<std::string, std::function<void()>>> kWays = {
      {"Put", [this] { calls_.Put(calls_.Take({})); }},
      {"Put, and idle for too long",
       [this] {
         calls_.Put(calls_.Take({}));
         now_ += LocalCalls::kMaxIdleTime + kTick;
       }},
      {"Drop", [this] { calls_.Drop(calls_.Take({})); }},
      {"DropAll", [this] { calls_.DropAll(calls_.Take({})); }},
      {"DropAll with idle ones",
       [this] {
         Connection first = calls_.Take({}), second = calls_.Take({}), third = calls_.Take({});
         calls_.Put(std::move(first));
         calls_.Put(std::move(second));
         calls_.DropAll(std::move(third));
       }},
      {"DropAll and a rest",
       [this] {
         calls_.DropAll(calls_.Take({}), LocalCalls::kRest);
         now_ += LocalCalls::kRest;
       }},
      {"a refusal", [&] { fails(Refuse, {}); }},
      {"a silent server", [&] { fails(SayNothing, Soon()); }},
      {"a cancelled call", [&] { fails(SayNothing, cancelled); }},
      {"nobody",
       [&] {
         Hide();
         fails(FakeLocalServer::Greet, {});
         Show();
       }},
      {"a connection for a session", [this] { EXPECT_NE(calls_.Connect({}), nullptr); }},
  };
  for (const auto& [name, way] : kWays) {
    // A place that is not given back each time is missed after a few, as one that is given back twice is.
    for (int i = 0; i < 3; ++i) way();
    ExpectAllPlacesFree(name);
    if (HasFatalFailure()) return;
  }
}

TEST_F(LocalCallsPoolTest, RestsAfterEachFailureForItsTime) {
  const auto take = [this](FakeLocalServer::Handler hello, const CallOptions& options) {
    server_.OnHello(std::move(hello));
    EXPECT_EQ(calls_.Take(options), nullptr);
  };
  const auto connect = [this](FakeLocalServer::Handler hello, const CallOptions& options) {
    server_.OnHello(std::move(hello));
    EXPECT_EQ(calls_.Connect(options), nullptr);
  };
  struct Case {
    const char* name;
    std::function<void()> fail;
    Clock::duration rest;
  };
  const Case kCases[] = {
      {"nothing", [] {}, {}},
      {"refused", [&] { take(Refuse, {}); }, LocalCalls::kRestAfterRefusal},
      {"refused to a session", [&] { connect(Refuse, {}); }, LocalCalls::kRestAfterRefusal},
      {"silent for a caller's short time", [&] { take(SayNothing, Soon()); }, LocalCalls::kRest},
      {"silent for a session's short time", [&] { connect(SayNothing, Soon()); }, LocalCalls::kRest},
      {"silent for long", [&] { take(SayNothing, {}); }, LocalCalls::kRestAfterRefusal},
      {"nobody",
       [&] {
         Hide();
         take(FakeLocalServer::Greet, {});
         Show();
       },
       LocalCalls::kRest},
      {"dropped", [&] { calls_.DropAll(calls_.Take({})); }, {}},
      {"dropped as silent", [&] { calls_.DropAll(calls_.Take({}), LocalCalls::kRest); }, LocalCalls::kRest},
  };
  for (const Case& c : kCases) {
    c.fail();
    if (c.rest > Clock::duration::zero()) {
      const Clock::time_point failed = now_;
      const int connections = server_.connections;
      EXPECT_FALSE(Tries()) << c.name;
      EXPECT_EQ(calls_.Connect({}), nullptr) << c.name;
      now_ = failed + c.rest - kTick;
      EXPECT_FALSE(Tries()) << c.name;
      EXPECT_EQ(server_.connections, connections) << c.name;
      now_ = failed + c.rest;
    }
    EXPECT_TRUE(Tries()) << c.name;
  }
}

TEST_F(LocalCallsPoolTest, ACallWithoutTimeDoesNotConnect) {
  CallOptions late;
  late.deadline = absl::Now();
  EXPECT_EQ(calls_.Take(late), nullptr);
  EXPECT_EQ(calls_.Connect(late), nullptr);
  EXPECT_EQ(server_.connections, 0);
  EXPECT_TRUE(Tries()) << "no rest";
}

// Until it is known whether the server takes calls, one finds out and the others do not wait.
TEST_F(LocalCallsPoolTest, OneCallerFindsOut) {
  absl::Notification asked, go_on;
  server_.OnHello([&](const Peer& peer, const v1::LocalRequest& request) {
    asked.Notify();
    EXPECT_TRUE(test::Comes(go_on));
    return FakeLocalServer::Greet(peer, request);
  });
  Connection first;
  std::thread finder([&] { first = calls_.Take({}); });
  EXPECT_TRUE(test::Comes(asked));
  CallOptions options;
  options.deadline = absl::Now() + absl::Milliseconds(500);  // so that one that waits comes back
  EXPECT_EQ(calls_.Take(options), nullptr);
  EXPECT_LT(absl::Now(), options.deadline) << "it has waited";
  server_.OnHello(FakeLocalServer::Greet);
  go_on.Notify();
  finder.join();
  ASSERT_NE(first, nullptr);
  Connection second = calls_.Take({});
  EXPECT_NE(second, nullptr);
  EXPECT_EQ(server_.hellos, 2);
}

TEST_F(LocalCallsPoolTest, TheLastUsedIsTakenFirstAndOneLongIdleIsClosed) {
  std::vector<Connection> taken;
  for (int i = 0; i < 3; ++i) taken.push_back(calls_.Take({}));
  const std::vector<LocalConnection*> order = {taken[0].get(), taken[1].get(), taken[2].get()};
  for (Connection& connection : taken) calls_.Put(std::move(connection));
  for (Connection& connection : taken) connection = calls_.Take({});
  EXPECT_EQ(taken[0].get(), order[2]);
  EXPECT_EQ(taken[1].get(), order[1]);
  EXPECT_EQ(taken[2].get(), order[0]);
  for (Connection& connection : taken) calls_.Put(std::move(connection));
  EXPECT_EQ(server_.connections, 3);
  now_ += LocalCalls::kMaxIdleTime;
  calls_.Put(calls_.Take({}));
  now_ += kTick;
  EXPECT_EQ(server_.standing, 3);
  calls_.Put(calls_.Take({}));
  EXPECT_TRUE(Becomes([&] { return server_.standing == 1; })) << server_.standing;
}

TEST_F(LocalCallsPoolTest, DropAllClosesTheIdleOnesAndDropOnlyItsOwn) {
  Connection first = calls_.Take({}), second = calls_.Take({}), third = calls_.Take({});
  calls_.Put(std::move(first));
  calls_.Drop(std::move(second));
  EXPECT_TRUE(Becomes([&] { return server_.standing == 2; })) << server_.standing;
  calls_.DropAll(std::move(third));
  EXPECT_TRUE(Becomes([&] { return server_.standing == 0; })) << server_.standing;
}

}  // namespace
}  // namespace attnd::client
