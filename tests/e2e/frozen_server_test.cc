// A server that is stopped and not dead (SIGSTOP): its sockets take what is sent, and nothing comes back.

#include <signal.h>
#include <sys/wait.h>

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
  // Returns once all of its threads have stopped.
  void Freeze() {
    server_.Signal(SIGSTOP);
    int status = 0;
    ASSERT_EQ(waitpid(server_.pid(), &status, WUNTRACED), server_.pid());
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  // A call of `queries` and as many keys, by Compute or by ComputeFuture.
  std::future<absl::StatusOr<ComputeReply>> Call(Client& client, bool later, std::int64_t queries = 1) {
    values_.resize(static_cast<std::size_t>(8 * queries * 64), 0.5F);
    ComputeRequest request;
    request.model = "t5-tiny";
    request.q = request.k = request.v = {values_.data(), DType::kFp32, {1, 8, queries, 64}};
    if (later) return client.ComputeFuture(request);
    return std::async(std::launch::async, [client, request]() mutable { return client.Compute(request); });
  }

  const test::TempFolder folder_;
  Process server_{{"--listen", target()}};
  std::vector<float> values_;
};

TEST_F(FrozenServerTest, IsNoticedByACallWithoutDeadline) {
  for (const bool later : {false, true}) {
    Client client = NewClient(/*repeats=*/false);
    ASSERT_EQ(Call(client, later).get()->transport, Transport::kLocal);
    Freeze();
    auto reply = Call(client, later);
    ASSERT_EQ(reply.wait_for(std::chrono::seconds(20)), std::future_status::ready) << later;
    const absl::Status status = reply.get().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_NE(status.message().find("no sign of life"), std::string::npos) << status;
    server_.Signal(SIGCONT);
    // The socket rests for a second, and calls go by gRPC meanwhile.
    EXPECT_TRUE(test::Becomes([&] {
      const auto next = Call(client, later).get();
      return next.ok() && next->transport == Transport::kLocal;
    }));
  }
}

TEST_F(FrozenServerTest, IsWaitedForByRepeats) {
  for (const bool later : {false, true}) {
    Client client = NewClient(/*repeats=*/true);
    ASSERT_EQ(Call(client, later).get()->transport, Transport::kLocal);
    Freeze();
    auto reply = Call(client, later);
    EXPECT_EQ(reply.wait_for(std::chrono::seconds(2)), std::future_status::timeout);
    server_.Signal(SIGCONT);
    EXPECT_TRUE(reply.get().ok());
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
    const auto reply = Call(client, later, 12'000).get();
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
    // So that the test says something.
    EXPECT_GT(absl::Now() - start, 2 * options.keepalive_time);
  }
}

}  // namespace
}  // namespace attnd::e2e
