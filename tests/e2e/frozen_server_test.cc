// A server that is stopped and not dead (SIGSTOP): its sockets take what is sent, and nothing comes back.

#include <signal.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "gtest/gtest.h"
#include "process.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

class FrozenServerTest : public testing::Test {
 protected:
  FrozenServerTest() { EXPECT_NE(server_.WaitForAddress(), "") << server_.output(); }

  std::string target() const { return "unix:" + folder_.path() + "/s"; }
  // That notices within a second.
  Client NewClient(bool repeats) const {
    ClientOptions options;
    options.keepalive_time = options.keepalive_timeout = absl::Milliseconds(500);
    options.retry.enabled = repeats;
    return *Client::Create(target(), options);
  }
  void Freeze() { ASSERT_TRUE(server_.Freeze()); }
  // A call of `queries` and as many keys, by Compute or by ComputeFuture.
  std::future<absl::StatusOr<ComputeReply>> Call(Client& client, bool later, std::int64_t queries = 1) {
    values_.resize(static_cast<std::size_t>(8 * queries * 64), 0.5F);
    ComputeRequest request;
    request.model = "t5-tiny";
    request.q = request.k = request.v = {values_.data(), DType::kFp32, {1, 8, queries, 64}};
    if (later) return client.ComputeFuture(request);
    return std::async(std::launch::async, [client, request]() mutable { return client.Compute(request); });
  }

  static void ExpectLocal(std::future<absl::StatusOr<ComputeReply>> future) {
    const absl::StatusOr<ComputeReply> reply = test::ValueOf(future);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
  }

  const test::TempFolder folder_;
  Process server_{{"--listen", target()}};
  std::vector<float> values_;
};

TEST_F(FrozenServerTest, IsNoticedByACallWithoutDeadline) {
  for (const bool later : {false, true}) {
    Client client = NewClient(/*repeats=*/false);
    ExpectLocal(Call(client, later));
    Freeze();
    auto reply = Call(client, later);
    const absl::Status status = test::ValueOf(reply).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_NE(status.message().find("no sign of life"), std::string::npos) << status;
    server_.Signal(SIGCONT);
    // The socket rests for a second, and calls go by gRPC meanwhile.
    EXPECT_TRUE(test::Becomes([&] {
      const auto next = test::ValueOf(Call(client, later));
      return next.ok() && next->transport == Transport::kLocal;
    }));
  }
}

TEST_F(FrozenServerTest, IsWaitedForByRepeats) {
  for (const bool later : {false, true}) {
    Client client = NewClient(/*repeats=*/true);
    ExpectLocal(Call(client, later));
    Freeze();
    auto reply = Call(client, later);
    EXPECT_EQ(reply.wait_for(std::chrono::seconds(2)), std::future_status::timeout);
    server_.Signal(SIGCONT);
    EXPECT_TRUE(test::ValueOf(reply).ok());
  }
}

// One that computes for many times the keepalive's time gives signs of life meanwhile, and is waited for.
TEST_F(FrozenServerTest, ABusyServerIsNotTakenForOne) {
  ClientOptions options;
  options.keepalive_time = options.keepalive_timeout = absl::Milliseconds(50);
  options.retry.enabled = false;
  for (const bool later : {false, true}) {
    Client client = *Client::Create(target(), options);
    const absl::Time start = absl::Now();
    const auto reply = test::ValueOf(Call(client, later, 6'000));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
    // So that the test says something.
    EXPECT_GT(absl::Now() - start, 2 * options.keepalive_time);
  }
}

}  // namespace
}  // namespace attnd::e2e
