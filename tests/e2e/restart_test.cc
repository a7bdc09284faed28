// The real server is restarted while the client library calls it: no call fails.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "process.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

std::unique_ptr<Process> Start(const std::string& address) {
  return std::make_unique<Process>(std::vector<std::string>{"--listen=" + address, "--threads=2"});
}

// Eight callers, of small calls and of calls in pieces, sync and async.
struct Load {
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0}, failed{0}, local{0};
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
      const auto reply = i % 2 == 0 ? client.Compute(request) : test::ValueOf(client.ComputeFuture(request));
      ++calls;
      if (!reply.ok()) {
        ++failed;
        ADD_FAILURE() << reply.status();
      } else if (reply->transport == Transport::kLocal) {
        ++local;
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
  auto info = std::async(std::launch::async, [&] { return client.GetServerInfo().status(); });
  absl::SleepFor(absl::Milliseconds(500));  // nobody listens
  server = Start(address);
  ASSERT_TRUE(test::IsReady(info));
  EXPECT_EQ(info.get(), absl::OkStatus());
}

// Restarts a server at `address` three times under load, each time by `signal`. `local`: calls go by the local socket.
void RestartUnderLoad(const std::string& address, int signal, bool local) {
  std::unique_ptr<Process> server = Start(address);
  const std::string bound = server->WaitForAddress();
  ASSERT_NE(bound, "") << server->output();
  Load load(*Client::Create(bound));
  for (int round = 0; round < 3; ++round) {
    absl::SleepFor(absl::Milliseconds(500));
    server->Signal(signal);
    server->Wait();
    absl::SleepFor(absl::Milliseconds(300));  // nobody listens
    server = Start(bound);
    if (server->WaitForAddress().empty()) {
      ADD_FAILURE() << server->output();
      break;
    }
  }
  // After a rest, calls are local again.
  if (local) {
    const int before = load.local;
    EXPECT_TRUE(test::Becomes([&] { return load.local > before + 100; }));
  }
  absl::SleepFor(absl::Milliseconds(500));
  load.Join();
  EXPECT_EQ(load.failed, 0) << "of " << load.calls;
  std::printf("%s, signal %d: %d calls, %d of them local, the longest took %d ms\n", bound.c_str(), signal,
              load.calls.load(), load.local.load(), static_cast<int>(load.longest_ms));
}

TEST(Restart, NoCallFails) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    RestartUnderLoad("127.0.0.1:0", signal, /*local=*/false);
  }
}

TEST(Restart, NoCallFailsOverTheLocalSocket) {
  const test::TempFolder folder;
  for (const int signal : {SIGTERM, SIGKILL}) {
    RestartUnderLoad("unix:" + folder.path() + "/s", signal, /*local=*/true);
  }
}

// The server is killed while it computes: the answer comes from the next one.
TEST(Restart, ALongLocalCallIsRepeatedByTheNextServer) {
  const test::TempFolder folder;
  const std::string address = "unix:" + folder.path() + "/s";
  std::unique_ptr<Process> server = Start(address);
  ASSERT_NE(server->WaitForAddress(), "");
  Client client = *Client::Create(address);
  const std::vector<float> values(8 * 6000 * 64, 0.5F);
  ComputeRequest request;
  request.model = "t5-tiny";
  request.q = request.k = request.v = {values.data(), DType::kFp32, {1, 8, 6000, 64}};
  for (const bool later : {false, true}) {
    auto future =
        later ? client.ComputeFuture(request) : std::async(std::launch::async, [&] { return client.Compute(request); });
    absl::SleepFor(absl::Milliseconds(150));
    server->Signal(SIGKILL);
    server->Wait();
    server = Start(address);
    EXPECT_NE(server->WaitForAddress(), "") << server->output();
    const auto reply = test::ValueOf(future);
    EXPECT_TRUE(reply.ok()) << reply.status();
    // After the rest since nobody listened.
    EXPECT_TRUE(test::Becomes([&] { return client.Compute(request)->transport == Transport::kLocal; }));
  }
}

}  // namespace
}  // namespace attnd::e2e
