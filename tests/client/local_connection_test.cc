// A connection for calls with the server's end in the test's hands: whether it is used again after each way in which a
// call ends, and what fits into a call.
#include "client/src/local_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "attnd/v1/local.pb.h"
#include "bounded.h"
#include "client/src/local_messages.h"
#include "fake_local_server.h"
#include "gtest/gtest.h"
#include "socket_ends.h"
#include "test_request.h"

namespace attnd::client {
namespace {

using std::chrono::hours;

class LocalConnectionTest : public testing::Test {
 protected:
  // The reply to the request that comes next, with `id` added to its number.
  std::string AnswerTo(const std::string& datagram, int id = 0) const {
    v1::LocalRequest request;
    EXPECT_TRUE(request.ParseFromString(datagram));
    request.mutable_call()->set_id(request.call().id() + static_cast<std::uint64_t>(id));
    return FakeLocalServer::ResultOf(request).SerializeAsString();
  }
  LocalConnection::Result Call(const CallOptions& options = {}) {
    return ends_.Bounded([&] { return connection_.Call(t_.request, shape_, {}, options); });
  }

  TestRequest t_;
  const Shape shape_ = *CheckRequest(t_.request);
  Ends ends_;
  LocalConnection connection_{std::move(ends_.socket)};
};

CallOptions Within(absl::Duration time) {
  CallOptions options;
  options.deadline = absl::Now() + time;
  return options;
}

TEST_F(LocalConnectionTest, AnAnsweredCallLeavesItUsable) {
  for (int i = 0; i < 3; ++i) {
    std::thread server([&] { ends_.Send(AnswerTo(ends_.Next())); });
    const LocalConnection::Result result = Call(i == 1 ? Within(absl::Hours(1)) : CallOptions());
    server.join();
    EXPECT_EQ(result.sent, LocalConnection::Sent::kYes);
    EXPECT_TRUE(result.reply.ok()) << result.reply.status();
    EXPECT_TRUE(result.usable);
    EXPECT_FALSE(result.silent);
  }
}

TEST_F(LocalConnectionTest, AnErrorOfTheServerLeavesItUsable) {
  std::thread server([&] {
    v1::LocalRequest request;
    EXPECT_TRUE(request.ParseFromString(ends_.Next()));
    v1::LocalReply reply;
    reply.mutable_answer()->set_id(request.call().id());
    reply.mutable_answer()->set_code(5);
    ends_.Send(reply.SerializeAsString());
  });
  const LocalConnection::Result result = Call();
  server.join();
  EXPECT_EQ(result.reply.status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(result.usable);
}

// Whatever else ends a call that was sent: its answer may still come, and would be taken for another's.
TEST_F(LocalConnectionTest, NoOtherWayOutOfACallThatWasSentLeavesItUsable) {
  struct Way {
    const char* name;
    std::function<void(const Ends&)> server;
    absl::StatusCode code;
    bool deadline = false;
  };
  const auto cancellation = std::make_shared<Cancellation>();
  const Way kWays[] = {
      {"late", [](const Ends& ends) { ends.Next(); }, absl::StatusCode::kDeadlineExceeded, true},
      {"lost",
       [](const Ends& ends) {
         ends.Next();
         ends.HangUp();
       },
       absl::StatusCode::kUnavailable},
      {"of the call before", [this](const Ends& ends) { ends.Send(AnswerTo(ends.Next(), -1)); },
       absl::StatusCode::kInternal},
      {"of the call after", [this](const Ends& ends) { ends.Send(AnswerTo(ends.Next(), 1)); },
       absl::StatusCode::kInternal},
      {"garbage",
       [](const Ends& ends) {
         ends.Next();
         ends.Send("\xff\xff");
       },
       absl::StatusCode::kInternal},
      {"too large",
       [](const Ends& ends) {
         ends.Next();
         ends.Send(std::string(kOffer + 1, 'x'));
       },
       absl::StatusCode::kInternal},
      {"cancelled",
       [&](const Ends& ends) {
         ends.Next();
         cancellation->Cancel();
       },
       absl::StatusCode::kCancelled},
  };
  for (const Way& way : kWays) {
    Ends ends;
    LocalConnection connection(std::move(ends.socket));
    CallOptions options = way.deadline ? Within(absl::Milliseconds(50)) : CallOptions();
    options.cancellation = std::make_shared<Cancellation>();
    const std::string name = way.name;
    if (name == "cancelled") options.cancellation = cancellation;
    std::thread server([&] { way.server(ends); });
    const LocalConnection::Result result =
        ends.Bounded([&] { return connection.Call(t_.request, shape_, {}, options); });
    server.join();
    EXPECT_EQ(result.sent, LocalConnection::Sent::kYes) << name;
    EXPECT_EQ(result.reply.status().code(), way.code) << name;
    EXPECT_FALSE(result.usable) << name;
    EXPECT_EQ(options.cancellation->calls(), 0U) << name;
  }
}

// The answer counts, but the connection was interrupted. Which of the two comes first is not decided here, so it is
// tried until the cancellation has.
TEST_F(LocalConnectionTest, ACancellationThatComesWithTheAnswerLeavesItUnusable) {
  int interrupted = 0;
  for (int i = 0; i < 1000 && interrupted < 3; ++i) {
    Ends ends;
    LocalConnection connection(std::move(ends.socket));
    CallOptions options;
    options.cancellation = std::make_shared<Cancellation>();
    std::thread server([&] {
      ends.Send(AnswerTo(ends.Next()));
      options.cancellation->Cancel();
    });
    const LocalConnection::Result result =
        ends.Bounded([&] { return connection.Call(t_.request, shape_, {}, options); });
    server.join();
    if (!result.reply.ok()) continue;
    EXPECT_EQ(result.usable, !ends.Ended());
    interrupted += ends.Ended() ? 1 : 0;
  }
  EXPECT_GT(interrupted, 0);
}

TEST_F(LocalConnectionTest, WhatIsNotSentLeavesItUsable) {
  CallOptions cancelled;
  cancelled.cancellation = std::make_shared<Cancellation>();
  cancelled.cancellation->Cancel();
  LocalConnection::Result result = Call(cancelled);
  EXPECT_EQ(result.reply.status(), absl::CancelledError("CANCELLED"));
  EXPECT_TRUE(result.usable);
  result = Call(Within(-absl::Milliseconds(1)));
  EXPECT_EQ(result.reply.status(), absl::DeadlineExceededError("Deadline Exceeded"));
  EXPECT_TRUE(result.usable);
  // Then calls come through.
  std::thread server([&] { ends_.Send(AnswerTo(ends_.Next())); });
  EXPECT_TRUE(Call().reply.ok());
  server.join();
}

TEST_F(LocalConnectionTest, AConnectionClosedBeforeTheCallIsGone) {
  ends_.HangUp();
  const LocalConnection::Result result = Call();
  EXPECT_EQ(result.sent, LocalConnection::Sent::kGone);
  EXPECT_FALSE(result.usable);
}

// A call and its answer must each fit; the server keeps kBesideResults of an answer for the rest.
TEST_F(LocalConnectionTest, TheLargestCallAndTheLargestAnswer) {
  struct Case {
    Sizes sizes;
    bool log_sum_exp;
  };
  // Of the call: about 9 KiB of q, or of the answer.
  for (const Case& c : {Case{{1, 1, 1, 1, 1, 2304, 1}, false}, Case{{1, 1, 1, 1, 1, 1, 2304}, false},
                        Case{{1, 1, 1, 288, 1, 2, 6}, false}, Case{{1, 1, 1, 1152, 1, 1, 1}, true}}) {
    TestRequest t(c.sizes);
    t.request.return_log_sum_exp = c.log_sum_exp;
    const Shape shape = *CheckRequest(t.request);
    LocalMessage message(t.request, shape, {});
    message.Address(1, absl::InfiniteDuration());
    const auto results = static_cast<std::size_t>(shape.output_bytes + (c.log_sum_exp ? shape.log_sum_exp_bytes : 0));
    EXPECT_EQ(message.answer_size(), results + kBesideResults);
    std::size_t sent_bytes = 0;
    for (const iovec& part : message.parts()) sent_bytes += part.iov_len;
    EXPECT_EQ(message.size(), sent_bytes);
    const std::size_t most = std::max(sent_bytes, results + kBesideResults);
    for (const bool fits : {true, false}) {
      int fds[2];
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
      const shm::UniqueFd server(fds[1]);
      LocalConnection connection(std::make_unique<LocalSocket>(
          shm::UniqueFd(fds[0]), LocalOffer{most - (fits ? 0 : 1), 16, true}, Keepalive{hours(1), hours(1)}));
      EXPECT_EQ(send(server.get(), "no answer", 9, MSG_NOSIGNAL), 9);  // which ends the call
      const auto result = client::Bounded([&] { return connection.Call(t.request, shape, {}, {}); },
                                          [&] { shutdown(server.get(), SHUT_RDWR); });
      EXPECT_EQ(result.sent, fits ? LocalConnection::Sent::kYes : LocalConnection::Sent::kTooLarge);
      EXPECT_EQ(result.usable, !fits) << "after what is no answer it is not used again";
    }
  }
}

}  // namespace
}  // namespace attnd::client
