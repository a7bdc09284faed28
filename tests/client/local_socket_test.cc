// A connection to the local socket with the server's end in the test's hands: what is received and until when, what a
// reply belongs to, and what a cancellation interrupts.
#include "client/src/local_socket.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/v1/local.pb.h"
#include "bounded.h"
#include "fake_local_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "socket_ends.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::client {
namespace {

using testing::HasSubstr;

using Clock = LocalSocket::Clock;
using std::chrono::hours;
using std::chrono::milliseconds;

Clock::time_point In(Clock::duration time) { return Clock::now() + time; }

std::string TextOf(absl::Span<const unsigned char> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

TEST(LocalSocketReceive, TakesUpToWhatTheServerOffersAndNotAByteMore) {
  for (const std::size_t size : {std::size_t{1}, kOffer - 1, kOffer}) {
    const Ends ends;
    const std::string sent(size, 'x');
    ends.Send(sent);
    const auto received = ends.Bounded([&] { return ends.socket->Receive(In(hours(1))); });
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ(TextOf(*received), sent);
  }
  for (const std::size_t size : {kOffer + 1, 4 * kOffer}) {
    const Ends ends;
    ends.Send(std::string(size, 'x'));
    const auto received = ends.Bounded([&] { return ends.socket->Receive(In(hours(1))); });
    EXPECT_EQ(received.status().code(), absl::StatusCode::kInternal) << received.status();
    EXPECT_THAT(received.status().message(), HasSubstr(std::to_string(size)));
  }
}

TEST(LocalSocketReceive, EndsAtItsTimeHoweverLongTheServerMayBeSilent) {
  for (const Keepalive& keepalive : {Keepalive{hours(1), hours(1)}, Keepalive{milliseconds(20), hours(1)}}) {
    const Ends ends(keepalive);
    const Clock::time_point until = In(milliseconds(60));
    const auto received = ends.Bounded([&] { return ends.socket->Receive(until); });
    EXPECT_EQ(received.status(), absl::DeadlineExceededError("Deadline Exceeded"));
    EXPECT_GE(Clock::now(), until);
    EXPECT_FALSE(ends.socket->silent());
  }
}

// With and without a time limit of the call.
TEST(LocalSocketReceive, EndsWhenAPingIsNotAnswered) {
  for (const bool limited : {false, true}) {
    const Ends ends({milliseconds(20), milliseconds(20)});
    const auto received =
        ends.Bounded([&] { return ends.socket->Receive(limited ? LocalSocket::Until(In(hours(1))) : std::nullopt); });
    EXPECT_EQ(received.status(), absl::UnavailableError("the server gives no sign of life"));
    EXPECT_TRUE(ends.socket->silent());
    EXPECT_EQ(ends.NextFixed().operation, shm::Operation::kRelease) << "the ping";
  }
}

TEST(LocalSocketReceive, WaitsForAsLongAsPingsAreAnswered) {
  for (const bool limited : {false, true}) {
    const Ends ends({milliseconds(20), std::chrono::seconds(10)});
    std::thread server([&] {
      for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(ends.NextFixed().operation, shm::Operation::kRelease);
        ends.SendFixed(0, 5);
      }
      ends.Send("answer");
    });
    const auto received =
        ends.Bounded([&] { return ends.socket->Receive(limited ? LocalSocket::Until(In(hours(1))) : std::nullopt); });
    ends.HangUp();  // ends a server that still waits for pings
    server.join();
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ(TextOf(*received), "answer");
    EXPECT_FALSE(ends.socket->silent());
  }
}

TEST(LocalSocketReceive, EndsWithTheConnectionWhoeverEndsIt) {
  const std::vector<std::function<void(Ends&)>> kEnds = {
      [](Ends& ends) { ends.HangUp(); },
      [](Ends& ends) { ends.server = shm::UniqueFd(); },
      [](Ends& ends) { ends.socket->Interrupt(); },
  };
  for (const auto& end : kEnds) {
    for (const bool limited : {false, true}) {
      Ends ends;
      auto received = std::async(std::launch::async, [&] {
        return ends.socket->Receive(limited ? LocalSocket::Until(In(hours(1))) : std::nullopt).status();
      });
      EXPECT_EQ(received.wait_for(milliseconds(10)), std::future_status::timeout);
      end(ends);
      const bool ended = test::IsReady(received);
      EXPECT_TRUE(ended);
      if (!ended) ends.HangUp();
      EXPECT_EQ(received.get().code(), absl::StatusCode::kUnavailable);
      EXPECT_FALSE(ends.socket->silent());
    }
  }
}

// Fixed messages are answered in order, so the number of those before it tells which reply is the registration's.
TEST(LocalSocketRegister, TakesTheReplyToItselfAndToNothingBefore) {
  for (int before = 0; before < 4; ++before) {
    const Ends ends;
    for (int i = 0; i < before; ++i) ends.socket->Release({});
    const shm::UniqueFd memory(memfd_create("test", 0));
    for (int round = 1; round <= 2; ++round) {
      std::thread server([&] {
        for (int i = 0; i < (round == 1 ? before : 0); ++i) {
          EXPECT_EQ(ends.NextFixed().operation, shm::Operation::kRelease);
          ends.SendFixed(100);
        }
        const shm::Request request = ends.NextFixed();
        EXPECT_EQ(request.operation, shm::Operation::kRegister);
        EXPECT_EQ(request.size, 4096U);
        ends.SendFixed(static_cast<unsigned char>(round));
      });
      const auto reply = ends.Bounded([&] { return ends.socket->Register(memory.get(), 4096, In(hours(1))); });
      server.join();
      ASSERT_TRUE(reply.ok()) << reply.status();
      EXPECT_EQ(reply->handle[0], round) << before << " releases before";
    }
    // Replies that come later are no answers.
    ends.socket->Release({});
    ends.NextFixed();
    ends.SendFixed(100);
    ends.Send("answer");
    EXPECT_EQ(TextOf(*ends.Bounded([&] { return ends.socket->Receive(In(hours(1))); })), "answer");
  }
}

// What a registration did not wait for is not the next one's either.
TEST(LocalSocketRegister, ALateReplyIsNotTheNextRegistrations) {
  const Ends ends;
  const shm::UniqueFd memory(memfd_create("test", 0));
  const auto late = ends.Bounded([&] { return ends.socket->Register(memory.get(), 4096, In(milliseconds(20))); });
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  ends.SendFixed(1);
  ends.SendFixed(2);
  const auto reply = ends.Bounded([&] { return ends.socket->Register(memory.get(), 4096, In(hours(1))); });
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->handle[0], 2);
}

TEST(LocalSocketRegister, KeepsEightDatagramsInTheirOrderAndNoNinth) {
  for (const int early : {0, 1, 2, 8, 9}) {
    const Ends ends;
    const shm::UniqueFd memory(memfd_create("test", 0));
    for (int i = 0; i < early; ++i) ends.Send("early " + std::to_string(i));
    ends.SendFixed(1);
    const auto reply = ends.Bounded([&] { return ends.socket->Register(memory.get(), 4096, In(hours(1))); });
    if (early == 9) {
      EXPECT_EQ(reply.status().code(), absl::StatusCode::kInternal) << reply.status();
      continue;
    }
    ASSERT_TRUE(reply.ok()) << reply.status();
    ends.Send("last");
    for (int i = 0; i < early; ++i) {
      EXPECT_EQ(TextOf(*ends.socket->Receive(In(hours(1)))), "early " + std::to_string(i));
    }
    EXPECT_EQ(TextOf(*ends.Bounded([&] { return ends.socket->Receive(In(hours(1))); })), "last");
  }
}

TEST(LocalSocketSend, WaitsForRoomUntilItsTime) {
  const Ends ends;
  const std::string datagram(kOffer, 'x');
  const iovec part{const_cast<char*>(datagram.data()), datagram.size()};
  const auto send = [&](Clock::duration time) {
    return ends.Bounded([&] { return ends.socket->Send({&part, 1}, In(time)); });
  };
  int sent = 0;
  for (Delivery delivery = Delivery::kDone; delivery == Delivery::kDone && sent < 10'000;) {
    delivery = send(milliseconds(20));
    sent += delivery == Delivery::kDone ? 1 : 0;
    EXPECT_TRUE(delivery == Delivery::kDone || delivery == Delivery::kNotYet);
  }
  std::thread reader([&] {
    absl::SleepFor(absl::Milliseconds(20));
    for (int i = 0; i < sent; ++i) EXPECT_EQ(ends.Next(), datagram);
  });
  EXPECT_EQ(send(hours(1)), Delivery::kDone);
  reader.join();
  ends.HangUp();
  EXPECT_EQ(send(hours(1)), Delivery::kBroken);
}

TEST(CancelGuardTest, InterruptsUntilItsEndAndNotAfter) {
  const auto cancellation = std::make_shared<Cancellation>();
  const Ends during, after, unwatched;
  {
    CancelGuard guard(cancellation, *after.socket);
    EXPECT_EQ(cancellation->calls(), 1U);
    EXPECT_FALSE(guard.End());
    EXPECT_EQ(cancellation->calls(), 0U);
  }
  CancelGuard none(nullptr, *unwatched.socket);
  CancelGuard guard(cancellation, *during.socket);
  EXPECT_FALSE(guard.cancelled());
  cancellation->Cancel();
  EXPECT_TRUE(guard.cancelled());
  EXPECT_FALSE(none.cancelled());
  EXPECT_TRUE(guard.End());
  EXPECT_TRUE(during.Ended());
  EXPECT_FALSE(after.Ended());
  EXPECT_FALSE(unwatched.Ended());
  // One that was cancelled before.
  const Ends late;
  CancelGuard cancelled(cancellation, *late.socket);
  EXPECT_TRUE(cancelled.cancelled());
  EXPECT_TRUE(late.Ended());
}

// A Cancel() that has taken the callback before End, and runs it after: the connection is another call's by then.
TEST(CancelGuardTest, ACallbackThatRunsAfterTheEndInterruptsNothing) {
  const auto cancellation = std::make_shared<Cancellation>();
  const Ends ends;
  std::optional<CancelGuard> guard;
  // Callbacks run in the order in which they were added: this one ends the call, and the guard's comes next.
  cancellation->Add([&] { EXPECT_FALSE(guard->End()); });
  guard.emplace(cancellation, *ends.socket);
  cancellation->Cancel();
  EXPECT_FALSE(ends.Ended());
  EXPECT_FALSE(guard->End());
}

// --- connecting

class LocalSocketMakeTest : public testing::Test {
 protected:
  LocalSocket::Made Make(Clock::duration time, const Cancellation* cancellation = nullptr) {
    const auto made = std::make_shared<LocalSocket::Made>();
    client::Bounded(
        [&] {
          *made = LocalSocket::Make(path_, "test", {hours(1), hours(1)}, In(time), cancellation);
          return 0;
        },
        [this] { server_.HangUp(); });
    return std::move(*made);
  }

  const test::TempFolder folder_;
  const std::string path_ = folder_.path() + "/s";
  FakeLocalServer server_{path_};
};

TEST_F(LocalSocketMakeTest, TheWelcomesLimitsAndOneMore) {
  using Outcome = LocalSocket::Made::Outcome;
  struct Case {
    const char* name;
    std::function<void(v1::LocalWelcome&)> change;
    Outcome outcome;
  };
  const Case kCases[] = {
      {"as usual", [](auto&) {}, Outcome::kGreeted},
      {"one call", [](v1::LocalWelcome& w) { w.set_max_calls(1); }, Outcome::kGreeted},
      {"no call", [](v1::LocalWelcome& w) { w.set_max_calls(0); }, Outcome::kNotOffered},
      {"the largest message", [](v1::LocalWelcome& w) { w.set_max_message_bytes(16U << 20); }, Outcome::kGreeted},
      {"a larger one", [](v1::LocalWelcome& w) { w.set_max_message_bytes((16U << 20) + 1); }, Outcome::kNotOffered},
      {"the largest number", [](v1::LocalWelcome& w) { w.set_max_message_bytes(~0U); }, Outcome::kNotOffered},
      {"another version", [](v1::LocalWelcome& w) { w.set_version(2); }, Outcome::kNotOffered},
      {"no version", [](v1::LocalWelcome& w) { w.set_version(0); }, Outcome::kNotOffered},
      {"an error", [](v1::LocalWelcome& w) { w.set_code(12); }, Outcome::kNotOffered},
  };
  for (const Case& c : kCases) {
    v1::LocalReply reply;
    reply.mutable_welcome()->set_version(1);
    reply.mutable_welcome()->set_max_message_bytes(65536);
    reply.mutable_welcome()->set_max_calls(256);
    reply.mutable_welcome()->set_sessions(true);
    c.change(*reply.mutable_welcome());
    server_.OnHello([bytes = reply.SerializeAsString()](const FakeLocalServer::Peer& peer, const v1::LocalRequest&) {
      return FakeLocalServer::Send(peer, bytes);
    });
    const LocalSocket::Made made = Make(hours(1));
    EXPECT_EQ(made.outcome, c.outcome) << c.name;
    ASSERT_EQ(made.socket != nullptr, c.outcome == Outcome::kGreeted) << c.name;
    if (made.socket == nullptr) continue;
    EXPECT_EQ(made.socket->offer().max_message_bytes, reply.welcome().max_message_bytes());
    EXPECT_EQ(made.socket->offer().max_calls, reply.welcome().max_calls());
    EXPECT_TRUE(made.socket->offer().sessions);
  }
}

TEST_F(LocalSocketMakeTest, EachWayInWhichItFailsLeavesNoConnection) {
  using Outcome = LocalSocket::Made::Outcome;
  EXPECT_EQ(LocalSocket::Make(path_ + "nobody", "test", {hours(1), hours(1)}, In(hours(1)), nullptr).outcome,
            Outcome::kNobody);
  EXPECT_EQ(LocalSocket::Make(std::string(200, 'x'), "test", {hours(1), hours(1)}, In(hours(1)), nullptr).outcome,
            Outcome::kNobody);
  server_.OnHello([](const FakeLocalServer::Peer&, const v1::LocalRequest&) { return false; });
  EXPECT_EQ(Make(hours(1)).outcome, Outcome::kNotOffered);
  server_.OnHello([](const FakeLocalServer::Peer&, const v1::LocalRequest&) { return true; });
  const Clock::time_point start = Clock::now();
  EXPECT_EQ(Make(milliseconds(50)).outcome, Outcome::kSilent);
  EXPECT_GE(Clock::now(), start + milliseconds(50));
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(Make(hours(1), &cancellation).outcome, Outcome::kSilent);
  EXPECT_TRUE(test::Becomes([&] { return server_.standing == 0; })) << server_.standing;
}

}  // namespace
}  // namespace attnd::client
