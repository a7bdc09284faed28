// ComputeFuture and ComputeAsync over a local socket: many calls on one connection, calls that end before their answer,
// servers that break off or say what is no answer, and what is left of them all.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "attnd/client.h"
#include "attnd/shm/protocol.h"
#include "bounded.h"
#include "fake_local_server.h"
#include "fake_server.h"
#include "signals.h"
#include "temp_folder.h"
#include "test_request.h"
#include "wait.h"

namespace attnd::client {
namespace {

using Peer = FakeLocalServer::Peer;

using test::Becomes;
using test::OpenDescriptors;

// What "at once" takes on a busy machine at most.
constexpr absl::Duration kPrompt = absl::Seconds(3);

class LocalFuturesTest : public testing::Test {
 protected:
  LocalFuturesTest() {
    options_.retry.enabled = false;
    options_.shared_memory = false;  // which makes a connection of its own
  }

  std::string path() const { return folder_.path() + "/s"; }
  Client NewClient() const { return *Client::Create("unix:" + path(), options_); }

  // From now on calls are kept, and not answered.
  void Keep() {
    local_.OnCall([this](const Peer& peer, const v1::LocalRequest& request) {
      absl::MutexLock lock(&mutex_);
      kept_.emplace_back(peer, request);
      return true;
    });
  }
  int kept() {
    absl::MutexLock lock(&mutex_);
    return static_cast<int>(kept_.size());
  }
  // Answers what was kept.
  void AnswerKept() {
    absl::MutexLock lock(&mutex_);
    for (const auto& [peer, request] : kept_) FakeLocalServer::Answer(peer, request);
    kept_.clear();
  }

  const test::TempFolder folder_;
  TestRequest t_;
  ClientOptions options_;
  absl::Mutex mutex_;
  std::vector<std::pair<Peer, v1::LocalRequest>> kept_ ABSL_GUARDED_BY(mutex_);
  FakeAttention attention_;
  FakeServer grpc_{{&attention_}, "unix:" + path()};
  FakeLocalServer local_{path() + shm::kSocketSuffix};
};

CallOptions In(absl::Duration time) {
  CallOptions options;
  options.deadline = absl::Now() + time;
  return options;
}

TEST_F(LocalFuturesTest, ADeadlineEndsACallOfASilentServer) {
  Keep();
  Client client = NewClient();
  const CallOptions options = In(absl::Milliseconds(80));
  const absl::Status status = Get(client.ComputeFuture(t_.request, options)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_GE(absl::Now(), options.deadline);
  EXPECT_LT(absl::Now(), options.deadline + kPrompt);
  // The server hears of it, and nothing of a call that is late at its beginning.
  EXPECT_TRUE(Becomes([&] { return local_.cancels == 1; }));
  EXPECT_EQ(Get(client.ComputeFuture(t_.request, In(absl::Milliseconds(-1)))).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(local_.calls, 1);
}

TEST_F(LocalFuturesTest, ALongDeadlineIsNoLimitToTheAnswer) {
  Client client = NewClient();
  for (const absl::Duration time :
       {absl::Seconds(1), absl::Hours(1), absl::Hours(24 * 365 * 200), absl::InfiniteDuration()}) {
    EXPECT_TRUE(Get(client.ComputeFuture(t_.request, In(time))).ok());
  }
}

TEST_F(LocalFuturesTest, ALateAnswerIsNobodysAnswer) {
  Keep();
  Client client = NewClient();
  EXPECT_FALSE(Get(client.ComputeFuture(t_.request, In(absl::Milliseconds(50)))).ok());
  ASSERT_EQ(kept(), 1);
  // The next call has another result, so that the late answer would show.
  TestRequest other;
  other.request.v.data = other.q.data();
  auto pending = client.ComputeFuture(other.request);
  ASSERT_TRUE(Becomes([&] { return kept() == 2; }));
  AnswerKept();
  const auto reply = Get(pending);
  ASSERT_TRUE(reply.ok()) << reply.status();
  local_.OnCall(FakeLocalServer::Answer);
  const auto expected = Get(client.ComputeFuture(other.request));
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(std::memcmp(reply->output.data(), expected->output.data(), reply->output.size_bytes()), 0);
  EXPECT_NE(std::memcmp(reply->output.data(), Get(client.ComputeFuture(t_.request))->output.data(),
                        reply->output.size_bytes()),
            0);
  EXPECT_EQ(local_.connections, 1);
}

TEST_F(LocalFuturesTest, ACancellationEndsACallOfASilentServerAtOnce) {
  Keep();
  Client client = NewClient();
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  auto reply = client.ComputeFuture(t_.request, options);
  ASSERT_TRUE(Becomes([&] { return kept() == 1; }));
  const absl::Time cancelled = absl::Now();
  options.cancellation->Cancel();
  EXPECT_EQ(Get(reply).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - cancelled, kPrompt);
  EXPECT_TRUE(Becomes([&] { return local_.cancels == 1; }));
  // Later calls that carry it do not reach the server.
  EXPECT_EQ(Get(client.ComputeFuture(t_.request, options)).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(local_.calls, 1);
}

TEST_F(LocalFuturesTest, ASilentHelloHoldsUpNoDeadlineAndCostsASecondOnce) {
  local_.OnHello([](const Peer&, const v1::LocalRequest&) { return true; });
  Client client = NewClient();
  const CallOptions options = In(absl::Milliseconds(50));
  EXPECT_EQ(Get(client.ComputeFuture(t_.request, options)).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - options.deadline, absl::Milliseconds(900));
  for (int i = 0; i < 3; ++i) {
    const auto reply = Get(client.ComputeFuture(t_.request));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kGrpc);
  }
  EXPECT_EQ(local_.connections, 1);
}

TEST_F(LocalFuturesTest, AServerWithoutCallsIsLeftAloneAndNobodySeesIt) {
  v1::LocalWelcome refusal;
  refusal.set_code(12);
  v1::LocalWelcome later;
  later.set_version(2);
  for (const FakeLocalServer::Handler& hello : std::vector<FakeLocalServer::Handler>{
           [](const Peer&, const v1::LocalRequest&) { return false; },
           [&](const Peer&peer, const v1::LocalRequest&) { return FakeLocalServer::Welcome(peer, refusal); },
           [&](const Peer&peer, const v1::LocalRequest&) { return FakeLocalServer::Welcome(peer, later); },
           [](const Peer&peer, const v1::LocalRequest&) { return FakeLocalServer::Send(peer, "garbage"); }}) {
    local_.OnHello(hello);
    Client client = NewClient();
    const int before = local_.connections;
    for (int i = 0; i < 3; ++i) EXPECT_EQ(Get(client.ComputeFuture(t_.request))->transport, Transport::kGrpc);
    EXPECT_EQ(local_.connections, before + 1);
  }
  EXPECT_EQ(local_.calls, 0);
}

TEST_F(LocalFuturesTest, AClientThatFoundNoCallsLeavesNothingBehind) {
  local_.OnHello([](const Peer&, const v1::LocalRequest&) { return false; });
  ASSERT_TRUE(Get(NewClient().ComputeFuture(t_.request)).ok());  // what is opened once
  absl::SleepFor(absl::Milliseconds(100));
  const std::size_t descriptors = OpenDescriptors();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Get(NewClient().ComputeFuture(t_.request)).ok());
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors + 5; })) << OpenDescriptors() << " " << descriptors;
}

TEST_F(LocalFuturesTest, WhatIsNoAnswerFailsTheCallAndNoLaterOne) {
  using Change = std::function<void(v1::LocalReply&)>;
  const auto changed = [](Change change) {
    return [change](const Peer& peer, const v1::LocalRequest& request) {
      v1::LocalReply reply = FakeLocalServer::ResultOf(request);
      change(reply);
      return FakeLocalServer::Send(peer, reply.SerializeAsString());
    };
  };
  const std::vector<std::pair<FakeLocalServer::Handler, absl::StatusCode>> kBreaches = {
      {[](const Peer&, const v1::LocalRequest&) { return false; }, absl::StatusCode::kUnavailable},
      {[](const Peer& peer, const v1::LocalRequest&) { return FakeLocalServer::Send(peer, "garbage"); },
       absl::StatusCode::kInternal},
      {[](const Peer& peer, const v1::LocalRequest&) { return FakeLocalServer::Send(peer, std::string(70'000, 'a')); },
       absl::StatusCode::kUnavailable},
      {changed([](v1::LocalReply& reply) { reply.mutable_answer()->set_id(1000); }), absl::StatusCode::kInternal},
      {changed([](v1::LocalReply& reply) { reply.mutable_welcome(); }), absl::StatusCode::kInternal},
      {changed([](v1::LocalReply& reply) { reply.mutable_answer()->clear_result(); }), absl::StatusCode::kInternal},
      {changed([](v1::LocalReply& reply) { reply.mutable_answer()->mutable_result()->set_output("x"); }),
       absl::StatusCode::kInternal},
  };
  for (const auto& [breach, code] : kBreaches) {
    SCOPED_TRACE(&breach - &kBreaches.front().first);
    local_.OnCall(breach);
    Client client = NewClient();
    const absl::Status status = Get(client.ComputeFuture(t_.request)).status();
    EXPECT_EQ(status.code(), code) << status;
    local_.OnCall(FakeLocalServer::Answer);
    EXPECT_TRUE(Get(client.ComputeFuture(t_.request)).ok());
  }
}

TEST_F(LocalFuturesTest, ACallWhoseConnectionIsLostIsRepeated) {
  options_.retry.enabled = true;
  std::atomic<int> to_lose{1};
  local_.OnCall([&](const Peer& peer, const v1::LocalRequest& request) {
    return to_lose-- > 0 ? false : FakeLocalServer::Answer(peer, request);
  });
  Client client = NewClient();
  const auto reply = Get(client.ComputeFuture(t_.request));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->transport, Transport::kLocal);
  EXPECT_EQ(local_.calls, 2);
}

TEST_F(LocalFuturesTest, AConnectionThatWasClosedBetweenCallsCostsNoRepeat) {
  Client client = NewClient();
  for (int i = 0; i < 20; ++i) {
    local_.OnCall([](const Peer& peer, const v1::LocalRequest& request) {
      FakeLocalServer::Answer(peer, request);
      return false;
    });
    EXPECT_TRUE(Get(client.ComputeFuture(t_.request)).ok());
    EXPECT_TRUE(Becomes([&] { return local_.standing == 0; }));
    local_.OnCall(FakeLocalServer::Answer);
    EXPECT_EQ(Get(client.ComputeFuture(t_.request))->transport, Transport::kLocal);
  }
}

TEST_F(LocalFuturesTest, OneCancellationEndsManyCalls) {
  Keep();
  Client client = NewClient();
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  std::vector<std::future<absl::StatusOr<ComputeReply>>> futures;
  for (int i = 0; i < 50; ++i) futures.push_back(client.ComputeFuture(t_.request, options));
  auto other = client.ComputeFuture(t_.request);
  ASSERT_TRUE(Becomes([&] { return kept() == 51; }));
  options.cancellation->Cancel();
  for (auto& future : futures) EXPECT_EQ(Get(future).status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Becomes([&] { return local_.cancels == 50; }));
  AnswerKept();
  EXPECT_TRUE(Get(other).ok());
}

TEST_F(LocalFuturesTest, CallsBeyondTheServersMostGoByGrpc) {
  local_.OnHello([](const Peer& peer, const v1::LocalRequest&) {
    v1::LocalWelcome welcome;
    welcome.set_max_calls(3);
    return FakeLocalServer::Welcome(peer, welcome);
  });
  Keep();
  Client client = NewClient();
  std::vector<std::future<absl::StatusOr<ComputeReply>>> futures;
  for (int i = 0; i < 3; ++i) futures.push_back(client.ComputeFuture(t_.request));
  ASSERT_TRUE(Becomes([&] { return kept() == 3; }));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Get(client.ComputeFuture(t_.request))->transport, Transport::kGrpc);
  AnswerKept();
  for (auto& future : futures) EXPECT_EQ(Get(future)->transport, Transport::kLocal);
  local_.OnCall(FakeLocalServer::Answer);
  EXPECT_EQ(Get(client.ComputeFuture(t_.request))->transport, Transport::kLocal);
}

// More than the socket has room for while the server reads nothing.
TEST_F(LocalFuturesTest, CallsThatFindNoRoomAtTheSocketWaitForIt) {
  Client client = NewClient();
  TestRequest large({1, 1, 1, 32, 64, 64, 32});  // 32 KiB in all
  ASSERT_TRUE(Get(client.ComputeFuture(large.request)).ok());
  const auto hold = std::make_shared<absl::Mutex>();  // the server may be at it still as the test ends
  hold->Lock();
  local_.OnCall([hold](const Peer& peer, const v1::LocalRequest& request) {
    absl::MutexLock lock(hold.get());
    return FakeLocalServer::Answer(peer, request);
  });
  std::vector<std::future<absl::StatusOr<ComputeReply>>> futures;
  for (int i = 0; i < 100; ++i) futures.push_back(client.ComputeFuture(large.request));
  EXPECT_LT(local_.calls, 20);
  hold->Unlock();
  for (auto& future : futures) {
    const auto reply = Get(future);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
  }
}

TEST_F(LocalFuturesTest, ACallThatTheSocketNeverTakesGoesByGrpcAtOnce) {
  local_.OnHello([](const Peer& peer, const v1::LocalRequest&) {
    v1::LocalWelcome welcome;
    welcome.set_max_message_bytes(16U << 20);  // more than a socket takes
    return FakeLocalServer::Welcome(peer, welcome);
  });
  Client client = NewClient();
  TestRequest large({1, 1, 1, 32, 64, 64, 32}), too_large(Large());
  ASSERT_TRUE(Get(client.ComputeFuture(large.request)).ok());
  const auto hold = std::make_shared<absl::Mutex>();
  hold->Lock();
  local_.OnCall([hold](const Peer& peer, const v1::LocalRequest& request) {
    absl::MutexLock lock(hold.get());
    return FakeLocalServer::Answer(peer, request);
  });
  std::vector<std::future<absl::StatusOr<ComputeReply>>> futures;
  for (int i = 0; i < 50; ++i) futures.push_back(client.ComputeFuture(large.request));
  const auto reply = Get(client.ComputeFuture(too_large.request));
  hold->Unlock();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->transport, Transport::kGrpc);
  for (auto& future : futures) EXPECT_TRUE(Get(future).ok());
  EXPECT_EQ(local_.connections, 1);
}

// By Compute too.
TEST_F(LocalFuturesTest, AServerThatGivesNoSignOfLifeIsGivenUp) {
  options_.keepalive_time = options_.keepalive_timeout = absl::Milliseconds(300);
  Keep();
  int i = 0;
  for (const CallOptions& options : {CallOptions(), In(absl::Seconds(100))}) {
    for (const bool later : {true, false}) {
      local_.lifeless = false;
      const int signs = local_.signs;
      Client client = NewClient();
      auto reply = later ? client.ComputeFuture(t_.request, options)
                         : std::async(std::launch::async, [&] { return client.Compute(t_.request, options); });
      // Alive, it may take its time.
      ASSERT_TRUE(Becomes([&] { return local_.signs >= signs + 3; }));
      EXPECT_EQ(reply.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
      EXPECT_EQ(kept(), ++i);
      local_.lifeless = true;
      const absl::Status status = Get(reply).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_NE(status.message().find("sign of life"), std::string::npos) << status;
    }
  }
}

TEST_F(LocalFuturesTest, ManyThreadsAndManyCallsLeaveNothingBehind) {
  // What gRPC and the library open once.
  EXPECT_TRUE(NewClient().GetServerInfo(In(absl::Seconds(5))).status().code() == absl::StatusCode::kUnimplemented);
  {
    Client warm = NewClient();
    ASSERT_TRUE(Get(warm.ComputeFuture(t_.request)).ok());
  }
  ASSERT_TRUE(Becomes([&] { return local_.standing == 0; }));
  const std::size_t descriptors = OpenDescriptors();
  {
    Client client = NewClient();
    std::atomic<int> by_socket{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 64; ++i) {
      threads.emplace_back([&, client]() mutable {
        for (int call = 0; call < 20; ++call) {
          const auto reply = Get(client.ComputeFuture(t_.request));
          ASSERT_TRUE(reply.ok()) << reply.status();
          by_socket += reply->transport == Transport::kLocal ? 1 : 0;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(by_socket, 64 * 20);
    EXPECT_EQ(local_.connections, 2);
  }
  EXPECT_TRUE(Becomes([&] { return local_.standing == 0; }));
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; })) << OpenDescriptors() << " > " << descriptors;
}

TEST_F(LocalFuturesTest, ACallOutlivesItsClient) {
  Keep();
  std::future<absl::StatusOr<ComputeReply>> reply;
  {
    Client client = NewClient();
    reply = client.ComputeFuture(t_.request);
    ASSERT_TRUE(Becomes([&] { return kept() == 1; }));
  }
  AnswerKept();
  EXPECT_TRUE(Get(reply).ok());
  EXPECT_TRUE(Becomes([&] { return local_.standing == 0; }));
}

// Each callback is run once, whichever of answer, cancellation and loss comes first, and whoever holds the client.
TEST_F(LocalFuturesTest, EveryCallEndsOnce) {
  constexpr int kCalls = 2000;
  std::atomic<int> lost{0}, cancelled{0};
  // Of the server's thread: how many calls came, and those that are not answered.
  const auto count = std::make_shared<int>(0);
  const auto open = std::make_shared<std::set<std::uint64_t>>();
  local_.OnCall([=](const Peer& peer, const v1::LocalRequest& request) {
    if (++*count % 20 == 0) return false;
    if (*count % 3 != 0) return FakeLocalServer::Answer(peer, request);
    open->insert(request.call().id());
    return true;
  });
  local_.OnCancel([=](const Peer& peer, const v1::LocalRequest& request) {
    v1::LocalReply reply;
    reply.mutable_answer()->set_id(request.cancel().id());
    reply.mutable_answer()->set_code(1);
    return open->erase(request.cancel().id()) == 0 || FakeLocalServer::Send(peer, reply.SerializeAsString());
  });
  std::vector<std::atomic<int>> ended(kCalls);
  std::atomic<int> left{kCalls};
  std::vector<std::shared_ptr<Cancellation>> cancellations(kCalls);
  for (auto& cancellation : cancellations) cancellation = std::make_shared<Cancellation>();
  std::thread canceller([&] {
    // Every other one first: the rest is there to be lost.
    for (const std::size_t first : {0U, 1U}) {
      for (std::size_t i = first; i < cancellations.size(); i += 2) {
        absl::SleepFor(absl::Microseconds(20));
        cancellations[i]->Cancel();
      }
    }
  });
  {
    Client client = NewClient();
    for (std::size_t i = 0; i < kCalls; ++i) {
      CallOptions options;
      options.cancellation = cancellations[i];
      client.ComputeAsync(t_.request, options, [&, i](const absl::StatusOr<ComputeReply>& reply) {
        ++ended[i];
        lost += absl::IsUnavailable(reply.status()) ? 1 : 0;
        cancelled += absl::IsCancelled(reply.status()) ? 1 : 0;
        --left;
      });
    }
  }
  canceller.join();
  EXPECT_TRUE(Becomes([&] { return left == 0; })) << left;
  for (const auto& times : ended) EXPECT_EQ(times, 1);
  EXPECT_GT(lost, 0);
  EXPECT_GT(cancelled, 0);
  EXPECT_TRUE(Becomes([&] { return local_.standing == 0; }));
}

TEST_F(LocalFuturesTest, ACallWhoseConnectionIsLostEndsAlsoWhenItsClientHasGone) {
  Keep();
  constexpr int kCalls = 10;
  std::atomic<int> unavailable{0};
  {
    Client client = NewClient();
    for (int i = 0; i < kCalls; ++i) {
      client.ComputeAsync(t_.request, {}, [&](const absl::StatusOr<ComputeReply>& reply) {
        unavailable += absl::IsUnavailable(reply.status()) ? 1 : 0;
      });
    }
    ASSERT_TRUE(Becomes([&] { return kept() == kCalls; }));
  }
  {
    absl::MutexLock lock(&mutex_);
    shutdown(kept_.front().first->get(), SHUT_RDWR);
    kept_.clear();
  }
  EXPECT_TRUE(Becomes([&] { return unavailable == kCalls; })) << unavailable;
}

// The child has copies of the sockets for as long as it lives.
TEST_F(LocalFuturesTest, AForkedChildKeepsNoConnectionOpen) {
  options_.shared_memory = true;
  auto client = std::make_unique<Client>(NewClient());
  // Large enough that the client asks whether it may copy it to shared memory.
  TestRequest large({1, 1, 1, 32, 64, 64, 32});
  ASSERT_TRUE(Get(client->ComputeFuture(large.request)).ok());
  ASSERT_TRUE(client->Compute(t_.request).ok());
  ASSERT_TRUE(Becomes([&] { return local_.standing == 3; }));
  Keep();
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  auto later = client->ComputeFuture(t_.request, options);
  auto now = std::async(std::launch::async, [&] { return client->Compute(t_.request, options); });
  ASSERT_TRUE(Becomes([&] { return kept() == 2; }));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    options.cancellation->Cancel();  // nothing of the parent's is cancelled
    client.reset();                  // the child's; it leaves the parent's connections alone
    kill(getpid(), SIGSTOP);
    while (true) pause();
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  AnswerKept();
  EXPECT_TRUE(Get(later).ok());
  EXPECT_TRUE(now.get().ok());
  EXPECT_EQ(local_.cancels, 0);
  local_.OnCall(FakeLocalServer::Answer);
  EXPECT_TRUE(Get(client->ComputeFuture(t_.request)).ok());
  EXPECT_EQ(client->Compute(t_.request)->transport, Transport::kLocal);
  const int connections = local_.connections;
  client.reset();
  EXPECT_TRUE(Becomes([&] { return local_.standing == 0; })) << local_.standing << " of " << connections;
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(LocalFuturesTest, ACallbackMayMakeTheNextCall) {
  Client client = NewClient();
  std::promise<int> done;
  std::function<void(int)> next = [&](int left) {
    client.ComputeAsync(t_.request, {}, [&, left](absl::StatusOr<ComputeReply> reply) {
      EXPECT_TRUE(reply.ok()) << reply.status();
      if (left > 0) return next(left - 1);
      done.set_value(left);
    });
  };
  next(200);
  EXPECT_EQ(done.get_future().get(), 0);
  EXPECT_EQ(local_.connections, 1);
}

}  // namespace
}  // namespace attnd::client
