// The client library's calls over the local socket against a real server: the results and errors of gRPC, restarts,
// cancellation, and nothing left behind.

#include <signal.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "client/src/attention_caller.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "process.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using test::Becomes;
using test::OpenDescriptors;

// FP32 tensors of one shape, and a request for them.
struct Tensors {
  explicit Tensors(std::int64_t length, std::int64_t heads = kHeads, std::int64_t keys = 0, std::int64_t dim = 16)
      : q(RandomFloats(heads * length * dim, 1)),
        k(RandomFloats(heads * (keys == 0 ? length : keys) * dim, 2)),
        v(RandomFloats(heads * (keys == 0 ? length : keys) * dim, 3)) {
    const std::int64_t key_length = keys == 0 ? length : keys;
    request.model = kModel;
    request.q = {q.data(), DType::kFp32, {1, heads, length, dim}};
    request.k = {k.data(), DType::kFp32, {1, heads, key_length, dim}};
    request.v = {v.data(), DType::kFp32, {1, heads, key_length, dim}};
    request.return_log_sum_exp = true;
  }
  Tensors(const Tensors&) = delete;
  const std::string q, k, v;
  ComputeRequest request;
};

std::string OutputOf(const ComputeReply& reply) {
  std::string bytes(reply.output.size_bytes(), '\0');
  reply.output.CopyTo(bytes.data());
  return bytes;
}

class LocalClientTest : public testing::Test {
 protected:
  LocalClientTest() { Start(); }

  void Start(bool local_calls = true) {
    server::Options options = TestOptions();
    options.listen = {target()};
    options.local_calls = local_calls;
    options.threads = 1;
    server_.reset();
    server_ = std::make_unique<TestServer>(options);
  }
  std::string target() const { return "unix:" + folder_.path() + "/s"; }
  Client Over(bool local) const {
    ClientOptions options;
    options.local_calls = local;
    return *Client::Create(target(), options);
  }
  std::int64_t in_flight() const { return server_->server().calls_in_flight(); }

  const test::TempFolder folder_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(LocalClientTest, ResultsAreThoseOfGrpcBitForBit) {
  Client local = Over(true), grpc = Over(false);
  for (const std::int64_t length : {1, 7, 60, 90, 400}) {  // sent; sent and copied; copied
    for (const bool log_sum_exp : {false, true}) {
      for (const DType output : {DType::kFp32, DType::kBf16}) {
        Tensors t(length);
        t.request.return_log_sum_exp = log_sum_exp;
        t.request.output_dtype = output;
        const auto expected = grpc.Compute(t.request), got = local.Compute(t.request);
        ASSERT_TRUE(expected.ok()) << expected.status();
        ASSERT_TRUE(got.ok()) << got.status();
        EXPECT_NE(expected->transport, Transport::kLocal);
        EXPECT_EQ(got->transport, Transport::kLocal);
        EXPECT_EQ(OutputOf(*got), OutputOf(*expected));
        EXPECT_EQ(got->log_sum_exp, expected->log_sum_exp);
        EXPECT_EQ(got->log_sum_exp.size(), log_sum_exp ? static_cast<std::size_t>(kHeads * length) : 0U);
        EXPECT_EQ(got->dtype, expected->dtype);
        EXPECT_EQ(got->version, expected->version);
        EXPECT_EQ(got->content_hash, expected->content_hash);
        EXPECT_GT(got->compute_time, absl::ZeroDuration());
      }
    }
  }
}

TEST_F(LocalClientTest, ErrorsAreThoseOfGrpc) {
  Client local = Over(true), grpc = Over(false);
  const Tensors t(5), heads(5, 3);
  ComputeRequest unknown = t.request, table = t.request;
  unknown.model = "nobody's";
  table.table = "nothing";
  for (const ComputeRequest& request : {unknown, table, heads.request}) {
    const absl::Status expected = grpc.Compute(request).status(), got = local.Compute(request).status();
    EXPECT_FALSE(expected.ok());
    EXPECT_EQ(got, expected);  // payloads too
  }
  EXPECT_TRUE(GetErrorDetail(local.Compute(heads.request).status()).has_value());
  EXPECT_EQ(local.Compute(t.request)->transport, Transport::kLocal);
}

TEST_F(LocalClientTest, TensorsInBuffersAreNotCopied) {
  const auto channel = grpc::CreateChannel(target(), grpc::InsecureChannelCredentials());
  const auto caller = std::make_shared<client::AttentionCaller>(
      std::make_shared<client::RetryPolicy>(RetryOptions(), channel), client::SharedMemory::ForTarget(target()),
      client::StreamPlan(),
      client::LocalCalls::ForTarget(target(), "test",
                                    client::Keepalive::Of(absl::InfiniteDuration(), absl::InfiniteDuration())));
  const Tensors t(400);
  const std::size_t bytes = t.q.size(), rows = 400 * kHeads;
  const SharedBuffer buffer = *caller->AllocateBuffer(4 * bytes + rows * sizeof(float));
  auto* const at = static_cast<char*>(buffer.data());
  std::memcpy(at, t.q.data(), bytes);
  std::memcpy(at + bytes, t.k.data(), bytes);
  std::memcpy(at + 2 * bytes, t.v.data(), bytes);
  ComputeRequest request = t.request;
  request.q.data = at;
  request.k.data = at + bytes;
  request.v.data = at + 2 * bytes;
  request.output = {at + 3 * bytes, bytes};
  request.log_sum_exp = {at + 4 * bytes, rows * sizeof(float)};
  for (int i = 0; i < 3; ++i) {
    std::memset(at + 3 * bytes, 0xff, bytes + rows * sizeof(float));
    const auto reply = caller->Compute(request, {});
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
    EXPECT_EQ(caller->copied_bytes(), 0);
    const auto expected = Over(false).Compute(t.request);
    EXPECT_EQ(std::string(at + 3 * bytes, bytes), OutputOf(*expected));
    EXPECT_EQ(std::memcmp(at + 4 * bytes, expected->log_sum_exp.data(), rows * sizeof(float)), 0);
  }
  ASSERT_TRUE(caller->Compute(t.request, {}).ok());
  EXPECT_EQ(caller->copied_bytes(), static_cast<std::int64_t>(4 * bytes + rows * sizeof(float)));
}

TEST_F(LocalClientTest, AServerWithoutLocalCallsIsCalledByGrpc) {
  Start(/*local_calls=*/false);
  Client client = Over(true);
  const Tensors t(5);
  for (int i = 0; i < 3; ++i) {
    const auto reply = client.Compute(t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kGrpc);
  }
}

TEST_F(LocalClientTest, CallsWithMetadataGoByGrpc) {
  CallOptions options;
  options.metadata = {{"x-request", "1"}};
  const Tensors t(5);
  EXPECT_EQ(Over(true).Compute(t.request, options)->transport, Transport::kGrpc);
}

TEST_F(LocalClientTest, ADeadlineAndACancellationEndALongCall) {
  Client client = Over(true);
  const Tensors small(5), large(32000, kHeads, 32000, 32);
  ASSERT_TRUE(client.Compute(small.request).ok());
  CallOptions late;
  late.deadline = absl::Now() + absl::Milliseconds(100);
  EXPECT_EQ(client.Compute(large.request, late).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - late.deadline, absl::Seconds(5));
  EXPECT_TRUE(Becomes([&] { return in_flight() == 0; }));

  CallOptions cancelled;
  cancelled.cancellation = std::make_shared<Cancellation>();
  std::thread canceller([&] {
    EXPECT_TRUE(Becomes([&] { return in_flight() == 1; }));
    cancelled.cancellation->Cancel();
  });
  const absl::Status status = client.Compute(large.request, cancelled).status();
  canceller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_TRUE(Becomes([&] { return in_flight() == 0; }));
  EXPECT_EQ(client.Compute(small.request, cancelled).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(client.Compute(small.request)->transport, Transport::kLocal);
}

TEST_F(LocalClientTest, ManyThreadsLeaveNothingBehind) {
  const Tensors small(5), large(200);
  const std::string expected_small = OutputOf(*Over(false).Compute(small.request));
  const std::string expected_large = OutputOf(*Over(false).Compute(large.request));
  std::atomic<int> right{0}, by_local{0};
  constexpr int kThreads = 64, kCalls = 30;
  ASSERT_TRUE(Becomes([&] { return server_->server().shared_memory()->mapped_bytes() == 0; }));
  const std::size_t descriptors = OpenDescriptors();
  {
    Client client = Over(true);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        const Tensors& t = i % 2 == 0 ? small : large;
        for (int call = 0; call < kCalls; ++call) {
          const auto reply = client.Compute(t.request);
          if (!reply.ok()) continue;
          right += OutputOf(*reply) == (i % 2 == 0 ? expected_small : expected_large) ? 1 : 0;
          by_local += reply->transport == Transport::kLocal ? 1 : 0;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(right.load(), kThreads * kCalls);
  EXPECT_GT(by_local.load(), kThreads * kCalls / 2);
  EXPECT_TRUE(Becomes([&] { return server_->server().shared_memory()->mapped_bytes() == 0; }));
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; })) << OpenDescriptors() << " " << descriptors;
}

// The binary that ships, ended under load and started anew.
TEST(LocalClientRestart, NoCallFails) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    const test::TempFolder folder;
    const std::string target = "unix:" + folder.path() + "/s";
    const auto start = [&] {
      auto server = std::make_unique<Process>(std::vector<std::string>{"--listen=" + target, "--threads=2"});
      EXPECT_NE(server->WaitForAddress(), "");
      return server;
    };
    std::unique_ptr<Process> server = start();
    Client client = *Client::Create(target);
    std::atomic<bool> stop{false};
    std::atomic<int> local{0}, calls{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        Tensors t(i < 4 ? 16 : 128, 8, 0, 64);  // sent and copied
        t.request.model = "t5-tiny";
        SharedBuffer output;
        if (i % 2 == 0) {
          output = *client.AllocateBuffer(t.q.size());
          t.request.output = {output.data(), output.size()};
        }
        while (!stop) {
          const auto reply = client.Compute(t.request);
          EXPECT_TRUE(reply.ok()) << reply.status();
          ++calls;
          if (reply.ok() && reply->transport == Transport::kLocal) ++local;
        }
      });
    }
    const auto runs = [&](int before) { return Becomes([&] { return local.load() > before + 100; }); };
    EXPECT_TRUE(runs(0));
    for (int i = 0; i < 2; ++i) {
      server->Signal(signal);
      server->Wait();
      server = start();
      EXPECT_TRUE(runs(local.load())) << "calls did not come back to the local socket";
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_GT(calls.load(), 300);
  }
}

}  // namespace
}  // namespace attnd::e2e
