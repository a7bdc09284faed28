// The real server is restarted while the client library calls it: no call fails.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "process.h"

namespace attnd::e2e {
namespace {

std::unique_ptr<Process> Start(const std::string& address) {
  return std::make_unique<Process>(std::vector<std::string>{"--listen=" + address, "--threads=2"});
}

// Eight callers, of small calls and of calls in pieces, sync and async.
struct Load {
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0}, failed{0};
  std::atomic<std::int64_t> longest_ms{0};
  std::vector<std::thread> threads;

  explicit Load(const Client& client) {
    for (int i = 0; i < 8; ++i) threads.emplace_back([this, client, i] { Run(client, i); });
  }
  void Join() {
    stop = true;
    for (std::thread& thread : threads) thread.join();
  }
  void Run(Client client, int i) {
    const std::int64_t batch = i < 6 ? 1 : 8, rows = i < 6 ? 16 : 128;
    const std::vector<float> values(static_cast<std::size_t>(batch * 8 * rows * 64), 0.5F);
    ComputeRequest request;
    request.model = "t5-tiny";
    request.q = request.k = request.v = {values.data(), DType::kFp32, {batch, 8, rows, 64}};
    while (!stop) {
      const absl::Time start = absl::Now();
      const auto reply = i % 2 == 0 ? client.Compute(request) : client.ComputeFuture(request).get();
      ++calls;
      if (!reply.ok()) {
        ++failed;
        ADD_FAILURE() << reply.status();
      }
      longest_ms = std::max(longest_ms.load(), absl::ToInt64Milliseconds(absl::Now() - start));
    }
  }
};

// The first test, while no asynchronous call has started the threads that wait in gRPC. Without gRPC's own look every
// five seconds (see CMakeLists.txt), only the call that waits brings the connection about.
TEST(Restart, ASynchronousCallConnectsAgain) {
  std::unique_ptr<Process> server = Start("127.0.0.1:0");
  const std::string address = server->WaitForAddress();
  ASSERT_NE(address, "");
  Client client = *Client::Create("ipv4:" + address);  // not looked up again
  ASSERT_TRUE(client.GetServerInfo().ok());
  server->Signal(SIGTERM);
  server->Wait();
  std::thread starter([&] {
    absl::SleepFor(absl::Milliseconds(500));  // nobody listens
    server = Start(address);
  });
  const auto info = client.GetServerInfo();
  starter.join();
  EXPECT_TRUE(info.ok()) << info.status();
}

TEST(Restart, NoCallFails) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    std::unique_ptr<Process> server = Start("127.0.0.1:0");
    const std::string address = server->WaitForAddress();
    ASSERT_NE(address, "");
    Load load(*Client::Create(address));
    for (int round = 0; round < 3; ++round) {
      absl::SleepFor(absl::Milliseconds(500));
      server->Signal(signal);
      server->Wait();
      absl::SleepFor(absl::Milliseconds(300));  // nobody listens
      server = Start(address);
      if (server->WaitForAddress().empty()) {
        ADD_FAILURE() << server->output();
        break;
      }
    }
    absl::SleepFor(absl::Milliseconds(500));
    load.Join();
    EXPECT_EQ(load.failed, 0) << "of " << load.calls;
    std::printf("signal %d: %d calls, the longest took %d ms\n", signal, load.calls.load(),
                static_cast<int>(load.longest_ms));
  }
}

}  // namespace
}  // namespace attnd::e2e
