// Every way out of a call, by every door that computes: afterwards the call holds nothing, its id and its place in line
// are free, and its computation has stopped. The other methods: ways_out_unary_test.cc.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "wait.h"
#include "ways_out_support.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using std::chrono::milliseconds;
using test::Becomes;

// Stops a server on a thread of its own; made once the server says that it stops.
class Stop {
 public:
  explicit Stop(HeldServer& server)
      : thread_([this, &server] {
          stopped_ = server.server().Stop();
          ended_.Notify();
        }) {
    const auto says_so = [&] {
      return HealthOf(server.test().channel(), "attnd.v1.AttentionService") != Health::kServing;
    };
    EXPECT_TRUE(Becomes(says_so));
  }
  ~Stop() { Wait(); }

  server::Stopped Wait() {
    if (!ended_.WaitForNotificationWithTimeout(test::Patience())) {
      std::cerr << "the server does not stop\n";
      std::abort();
    }
    if (thread_.joinable()) thread_.join();
    return stopped_;
  }

 private:
  server::Stopped stopped_;
  absl::Notification ended_;
  std::thread thread_;
};

class WaysOutTest : public testing::TestWithParam<Door> {
 protected:
  WaysOutTest() { server_.emplace(); }
  static Door door() { return GetParam(); }
  HeldServer& server() { return *server_; }
  std::unique_ptr<Caller> NewCaller(std::optional<milliseconds> timeout = std::nullopt) {
    return Caller::Create(server(), door(), timeout);
  }

  // Expects a message to be answered with this code.
  static void ExpectAnswer(Caller& caller, Message message, StatusCode code) {
    caller.Send(message);
    EXPECT_EQ(caller.Answer(), code);
  }

  // Expects that the server is as it was: the caller goes on if it is alive, the next one is served, and at the end
  // nothing is held.
  void ExpectAsBefore(Caller& caller, bool alive) {
    if (alive) {
      ExpectAnswer(caller, Message::kSmall, StatusCode::OK);
      ExpectAnswer(caller, Message::kLarge, StatusCode::OK);
      ExpectNextIsServed();  // what stays open without a message holds no place
      EXPECT_EQ(caller.Close(), StatusCode::OK);
    }
    ExpectNextIsServed();
    server().ExpectIdle();
    EXPECT_EQ(server().waiting(), 0);
    EXPECT_EQ(server().open_sessions(), 0);
  }
  void ExpectNextIsServed() {
    const std::unique_ptr<Caller> next = NewCaller();
    ExpectAnswer(*next, Message::kLarge, StatusCode::OK);
    EXPECT_EQ(next->Close(), StatusCode::OK);
  }

  // Steps of the kernel that a large message takes.
  std::int64_t StepsOfALargeMessage() {
    const std::int64_t before = server().kernel().steps();
    ExpectNextIsServed();
    const std::int64_t steps = server().kernel().steps() - before;
    EXPECT_GE(steps, 8) << "too few to see that a computation stops";
    return steps;
  }

  // A caller whose large message is being computed, with the kernel held.
  std::unique_ptr<Caller> Computing() { return Held(NewCaller()); }
  // The same of another connection.
  std::unique_ptr<Caller> OccupyingTheThread() {
    std::unique_ptr<Caller> first = Held(NewCaller());
    held_by_first_ = server().held();
    return first;
  }
  std::unique_ptr<Caller> Held(std::unique_ptr<Caller> caller) {
    server().Hold();
    caller->Send(Message::kLarge);
    EXPECT_TRUE(server().kernel().AwaitHeld());
    steps_begun_ = server().kernel().steps();
    return caller;
  }

  // Lets `first` end, and expects that the kernel did nothing else.
  void ExpectNoStepsBut(Caller& first, std::int64_t steps) {
    server().kernel().Release();
    EXPECT_EQ(first.Answer(), StatusCode::OK);
    EXPECT_EQ(first.Close(), StatusCode::OK);
    EXPECT_TRUE(Becomes([&] { return server().waiting() == 0; }));
    EXPECT_LT(server().kernel().steps() - steps_begun_, steps + steps / 2) << "it was computed";
  }

  // Lets the kernel go on, and expects the caller's answer, with this code, before half of the computation is done.
  // What ends it may reach the server a moment later than its caller, so the kernel goes slowly.
  void ExpectComputationStops(Caller& caller, StatusCode code, bool alive, std::int64_t steps) {
    server().kernel().ReleaseSlowly();
    EXPECT_EQ(caller.Answer(), code);
    if (!alive) server().ExpectIdle();
    EXPECT_LT(server().kernel().steps() - steps_begun_, steps / 2) << "the computation went on";
    server().kernel().Release();
  }

  bool SurvivesCancel() const { return IsLocal(door()); }
  bool SurvivesDeadline() const { return IsLocal(door()) || IsSession(door()); }

  // Expects that the bytes of answers that are not sent count, and go on counting.
  void ExpectUnreadAnswersCount(const HeldServer::Held& before) {
    const std::int64_t least = before.bytes + FloodedBytes(door());
    EXPECT_TRUE(Becomes([&] { return server().held().bytes >= least && server().waiting() == 0; })) << server().held();
    for (int i = 0; i < 20; ++i) EXPECT_GE(server().held().bytes, least) << "given back before it was sent";
    // Messages are gone when their results are there.
    if (door() == Door::kUnary || door() == Door::kStream) {
      EXPECT_TRUE(Becomes([] { return server::AttentionEngine::received_bytes() == 0; }));
    }
  }

  static milliseconds ShortTime() { return absl::ToChronoMilliseconds(test::Patience() / 100); }

  std::optional<HeldServer> server_;
  std::int64_t steps_begun_ = 0;  // when the kernel was held
  HeldServer::Held held_by_first_;
};
INSTANTIATE_TEST_SUITE_P(, WaysOutTest, testing::ValuesIn(kDoors), [](const auto& info) { return NameOf(info.param); });

TEST_P(WaysOutTest, Answered) {
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  ExpectAnswer(*caller, Message::kLarge, StatusCode::OK);
  if (door() != Door::kUnary) server().ExpectHeld(before);
  ExpectAsBefore(*caller, door() != Door::kUnary);
}

TEST_P(WaysOutTest, Refused) {
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  ExpectAnswer(*caller, Message::kRefused, StatusCode::INVALID_ARGUMENT);
  if (caller->outlives_an_error()) server().ExpectHeld(before);
  ExpectAsBefore(*caller, caller->outlives_an_error());
}

TEST_P(WaysOutTest, Undecodable) {
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  ExpectAnswer(*caller, Message::kUndecodable, StatusCode::INVALID_ARGUMENT);
  if (caller->outlives_noise()) server().ExpectHeld(before);
  ExpectAsBefore(*caller, caller->outlives_noise());
}

// What is queued holds what it needs, and gives it back while the call before it is still being computed.
TEST_P(WaysOutTest, CancelledWhileQueued) {
  const std::int64_t steps = StepsOfALargeMessage();
  const std::unique_ptr<Caller> first = OccupyingTheThread();
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  caller->Send(Message::kLarge);
  ASSERT_TRUE(Becomes([&] { return server().held().bytes > before.bytes; }));
  caller->Cancel();
  EXPECT_EQ(caller->Answer(), StatusCode::CANCELLED);
  server().ExpectHeld(SurvivesCancel() ? before : held_by_first_);
  ExpectNoStepsBut(*first, steps);
  ExpectAsBefore(*caller, SurvivesCancel());
}

TEST_P(WaysOutTest, CancelledWhileComputing) {
  const std::int64_t steps = StepsOfALargeMessage();
  const std::unique_ptr<Caller> caller = Computing();
  caller->Cancel();
  ExpectComputationStops(*caller, StatusCode::CANCELLED, SurvivesCancel(), steps);
  ExpectAsBefore(*caller, SurvivesCancel());
}

TEST_P(WaysOutTest, DeadlinePassesWhileQueued) {
  const std::int64_t steps = StepsOfALargeMessage();
  const std::unique_ptr<Caller> first = OccupyingTheThread();
  const milliseconds time = ShortTime();
  const std::unique_ptr<Caller> caller = NewCaller(time);
  caller->Send(Message::kLarge);
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_TRUE(Becomes([&] { return std::chrono::steady_clock::now() > begun + time; }));
  // gRPC ends a call by its own timer. Of a step and of a local call the server sees that they are late when their turn
  // comes.
  if (!SurvivesDeadline()) {
    EXPECT_EQ(caller->Answer(), StatusCode::DEADLINE_EXCEEDED);
    server().ExpectHeld(held_by_first_);
  }
  ExpectNoStepsBut(*first, steps);
  if (SurvivesDeadline()) {
    EXPECT_EQ(caller->Answer(), StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(caller->Close(), StatusCode::OK);
  }
  ExpectAsBefore(*caller, false);
}

TEST_P(WaysOutTest, DeadlinePassesWhileComputing) {
  const std::int64_t steps = StepsOfALargeMessage();
  // On a busy machine a short time may pass before the computation begins.
  std::unique_ptr<Caller> caller;
  for (milliseconds time = ShortTime(); caller == nullptr && time < std::chrono::seconds(20); time *= 2) {
    server().Hold();
    caller = NewCaller(time);
    caller->Send(Message::kLarge);
    const auto begun = std::chrono::steady_clock::now();
    const auto is_late = [&] { return std::chrono::steady_clock::now() > begun + time; };
    EXPECT_TRUE(Becomes([&] { return server().kernel().is_held() || is_late(); }));
    if (server().kernel().is_held()) {
      EXPECT_TRUE(Becomes(is_late));
      break;
    }
    server().kernel().Release();
    caller = nullptr;
  }
  ASSERT_NE(caller, nullptr);
  steps_begun_ = server().kernel().steps();
  ExpectComputationStops(*caller, StatusCode::DEADLINE_EXCEEDED, SurvivesDeadline(), steps);
  if (SurvivesDeadline()) {
    EXPECT_EQ(caller->Close(), StatusCode::OK);
  }
  ExpectAsBefore(*caller, false);
}

TEST_P(WaysOutTest, ConnectionLostWhileQueued) {
  const std::int64_t steps = StepsOfALargeMessage();
  const std::unique_ptr<Caller> first = OccupyingTheThread();
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  caller->Send(Message::kLarge);
  ASSERT_TRUE(Becomes([&] { return server().held().bytes > before.bytes; }));
  caller->Break();
  server().ExpectHeld(held_by_first_);
  ExpectNoStepsBut(*first, steps);
  ExpectAsBefore(*caller, false);
}

TEST_P(WaysOutTest, ConnectionLostWhileComputing) {
  const std::int64_t steps = StepsOfALargeMessage();
  const std::unique_ptr<Caller> caller = Computing();
  caller->Break();
  server().kernel().ReleaseSlowly();
  server().ExpectIdle();
  EXPECT_LT(server().kernel().steps() - steps_begun_, steps / 2) << "the computation went on";
  server().kernel().Release();
  ExpectAsBefore(*caller, false);
}

// As long as an answer is not sent, its bytes count.
TEST_P(WaysOutTest, AnswersAreReadLate) {
  if (IsLocal(door())) GTEST_SKIP() << "tests/server/shm has a local caller that does not read";
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  const int messages = caller->Flood();
  ASSERT_GT(messages, 0);
  ExpectUnreadAnswersCount(before);
  for (int i = 0; i < messages; ++i) EXPECT_EQ(caller->Answer(), StatusCode::OK) << i;
  if (door() != Door::kUnary) server().ExpectHeld(before);
  ExpectAsBefore(*caller, door() != Door::kUnary);
}

TEST_P(WaysOutTest, ConnectionLostWhileAnswersAreUnread) {
  if (IsLocal(door())) GTEST_SKIP() << "tests/server/shm has a local caller that does not read";
  const std::unique_ptr<Caller> caller = NewCaller();
  const HeldServer::Held before = server().held();
  ASSERT_GT(caller->Flood(), 0);
  ExpectUnreadAnswersCount(before);
  caller->Break();
  server().ExpectIdle();
  ExpectAsBefore(*caller, false);
}

TEST_P(WaysOutTest, AStopAnswersWhatHasBegun) {
  const std::unique_ptr<Caller> caller = Computing();
  Stop stop(server());
  server().kernel().Release();
  EXPECT_EQ(caller->Answer(), StatusCode::OK);
  caller->Close();
  EXPECT_EQ(stop.Wait().cut_off, 0);
  server().ExpectIdle();
}

TEST_P(WaysOutTest, AStopCutsOffWhatIsLeft) {
  server_.emplace(/*drain=*/absl::ZeroDuration());
  const std::int64_t steps = StepsOfALargeMessage();
  const std::unique_ptr<Caller> caller = Computing();
  Stop stop(server());
  server().kernel().ReleaseSlowly();
  EXPECT_NE(caller->Answer(), StatusCode::OK);
  EXPECT_EQ(stop.Wait().cut_off, 1);
  server().ExpectIdle();
  EXPECT_LT(server().kernel().steps() - steps_begun_, steps / 2) << "the computation went on";
}

}  // namespace
}  // namespace attnd::e2e
