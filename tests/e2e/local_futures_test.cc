// ComputeFuture over the local socket of a real server: the same as Compute and as gRPC, bit for bit and word for word,
// with nothing copied that lies in shared memory, and nothing left behind.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "client/src/attention_caller.h"
#include "client/src/local_mux.h"
#include "client/src/retry.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using test::Becomes;
using test::OpenDescriptors;

std::string OutputOf(const ComputeReply& reply) {
  std::string bytes(reply.output.size_bytes(), '\0');
  if (!bytes.empty()) reply.output.CopyTo(bytes.data());
  return bytes;
}

// Bits of log-sum-exps, which may be infinite.
std::string BitsOf(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

class LocalFuturesTest : public testing::Test {
 protected:
  LocalFuturesTest() { Start({}); }

  void Start(const std::function<void(server::Options&)>& change) {
    server::Options options = TestOptions();
    options.listen = {"unix:" + path()};
    if (change) change(options);
    server_.reset();
    server_ = std::make_unique<TestServer>(options);
  }
  std::string path() const { return folder_.path() + "/s"; }
  Client NewClient(bool local = true, bool shared = true) const {
    ClientOptions options;
    options.local_calls = local;
    options.shared_memory = shared;
    return *Client::Create("unix:" + path(), options);
  }
  std::int64_t mapped() const { return server_->server().shared_memory()->mapped_bytes(); }

  const test::TempFolder folder_;
  std::unique_ptr<TestServer> server_;
};

// A request whose tensors are views of `bytes`.
ComputeRequest ViewOf(const std::string& bytes, const Shape& s, DType dtype, Layout layout) {
  ComputeRequest request;
  request.model = kModel;
  request.layout = layout;
  const auto tensor = [&](std::int64_t rows) {
    TensorView view{bytes.data(), dtype, {s.batch, kHeads, rows, s.head_dim}};
    if (layout == Layout::kBatchSequenceHeadDim) std::swap(view.sizes[1], view.sizes[2]);
    return view;
  };
  request.q = tensor(s.query_length);
  request.k = tensor(s.key_length);
  request.v = tensor(s.key_length);
  request.return_log_sum_exp = true;
  return request;
}

// Numbers of about unit size in `dtype`.
std::string Numbers(std::int64_t count, DType dtype) {
  const std::string floats = RandomFloats(count, 5);
  if (dtype == DType::kFp32) return floats;
  std::string halves;
  for (std::size_t i = 0; i < floats.size(); i += 4) {
    // The upper half of a float is a BF16; as FP16 any number below the exponent of infinities will do.
    halves += floats[i + 2];
    halves += static_cast<char>(floats[i + 3] & (dtype == DType::kBf16 ? 0xff : 0xbb));
  }
  return halves;
}

TEST_F(LocalFuturesTest, ResultsAreThoseOfGrpcBitForBit) {
  Client plain = NewClient(false, false), local = NewClient(), unshared = NewClient(true, false);
  const Shape kShapes[] = {{.batch = 1, .query_length = 1, .key_length = 1, .head_dim = 1},  // all in the datagram
                           {.batch = 2, .query_length = 5, .key_length = 70, .head_dim = 16},
                           {.batch = 2, .query_length = 100, .key_length = 230, .head_dim = 32},   // staged
                           {.batch = 1, .query_length = 20'000, .key_length = 3, .head_dim = 8}};  // a long log-sum-exp
  int i = 0;
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kFp32, DType::kFp16, DType::kBf16}) {
      const std::int64_t longest = std::max(shape.query_length, shape.key_length);
      const std::string bytes = Numbers(shape.batch * kHeads * longest * shape.head_dim, dtype);
      for (const Layout layout : {Layout::kBatchHeadSequenceDim, Layout::kBatchSequenceHeadDim}) {
        for (const Mask mask : {Mask::kOfTable, Mask::kCausal, Mask::kNone}) {
          ComputeRequest request = ViewOf(bytes, shape, dtype, layout);
          request.mask = mask;
          request.return_log_sum_exp = ++i % 4 != 0;
          if (i % 3 == 0) request.output_dtype = DType::kFp32;
          if (i % 5 == 0) request.key_lengths.assign(static_cast<std::size_t>(shape.batch), shape.key_length / 2);
          const auto expected = plain.Compute(request);
          ASSERT_TRUE(expected.ok()) << expected.status();
          ASSERT_EQ(expected->transport, Transport::kGrpc);
          for (Client* client : {&local, &unshared}) {
            for (const bool later : {false, true}) {
              const auto got = later ? test::ValueOf(client->ComputeFuture(request)) : client->Compute(request);
              ASSERT_TRUE(got.ok()) << got.status();
              if (client == &local) {
                EXPECT_EQ(got->transport, Transport::kLocal);
              }
              ASSERT_EQ(OutputOf(*got), OutputOf(*expected));
              ASSERT_EQ(BitsOf(got->log_sum_exp), BitsOf(expected->log_sum_exp));
              EXPECT_EQ(got->version, expected->version);
              EXPECT_EQ(got->content_hash, expected->content_hash);
              EXPECT_EQ(got->dtype, expected->dtype);
            }
          }
        }
      }
    }
  }
}

TEST_F(LocalFuturesTest, WhatLiesInSharedMemoryIsNotCopiedAtAll) {
  const Shape shape{.batch = 2, .query_length = 200, .key_length = 230, .head_dim = 32};
  const std::string target = "unix:" + path();
  const auto channel = grpc::CreateChannel(target, grpc::InsecureChannelCredentials());
  const auto caller = std::make_shared<client::AttentionCaller>(
      std::make_shared<client::RetryPolicy>(RetryOptions(), channel), client::SharedMemory::ForTarget(target),
      client::StreamPlan(), nullptr,
      client::LocalMux::ForTarget(target, "test",
                                  client::Keepalive::Of(absl::InfiniteDuration(), absl::InfiniteDuration())));
  const auto call = [&](const ComputeRequest& request) {
    std::promise<absl::StatusOr<ComputeReply>> promise;
    caller->ComputeAsync(request, {}, [&](absl::StatusOr<ComputeReply> reply) { promise.set_value(std::move(reply)); });
    return test::ValueOf(promise.get_future());
  };
  const std::int64_t rows = shape.batch * kHeads;
  const std::size_t q = static_cast<std::size_t>(rows * shape.query_length * shape.head_dim) * 4;
  const std::size_t k = static_cast<std::size_t>(rows * shape.key_length * shape.head_dim) * 4;
  const std::size_t lse = static_cast<std::size_t>(rows * shape.query_length) * 4;
  const SharedBuffer buffer = *caller->AllocateBuffer(2 * q + 2 * k + lse);
  auto* const at = static_cast<unsigned char*>(buffer.data());
  const std::string numbers = Numbers(static_cast<std::int64_t>(q + 2 * k) / 4, DType::kFp32);
  std::memcpy(at, numbers.data(), numbers.size());
  ComputeRequest ordinary = ViewOf(numbers, shape, DType::kFp32, Layout::kBatchHeadSequenceDim);
  ordinary.k.data = numbers.data() + q;
  ordinary.v.data = numbers.data() + q + k;
  const auto expected = NewClient(false, false).Compute(ordinary);
  ASSERT_TRUE(expected.ok()) << expected.status();
  ComputeRequest request = ordinary;
  request.q.data = at;
  request.k.data = at + q;
  request.v.data = at + q + k;
  request.output = {at + q + 2 * k, q};
  request.log_sum_exp = {at + 2 * q + 2 * k, lse};
  for (int i = 0; i < 3; ++i) {
    std::memset(request.output.data, 0xee, q + lse);
    const auto reply = call(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
    EXPECT_EQ(std::string(static_cast<char*>(request.output.data), q), OutputOf(*expected));
    EXPECT_EQ(std::string(static_cast<char*>(request.log_sum_exp.data), lse), BitsOf(expected->log_sum_exp));
  }
  EXPECT_EQ(caller->copied_bytes(), 0);
  // Ordinary memory is copied once.
  ASSERT_TRUE(call(ordinary).ok());
  EXPECT_EQ(caller->copied_bytes(), static_cast<std::int64_t>(2 * q + 2 * k + lse));
}

TEST_F(LocalFuturesTest, ErrorsAreThoseOfGrpcWordForWord) {
  Client grpc = NewClient(false), local = NewClient();
  const std::string bytes = Numbers(1000, DType::kFp32);
  using Change = std::function<void(ComputeRequest&)>;
  const std::vector<Change> changes = {
      [](ComputeRequest& r) { r.model = "nobody"; },
      [](ComputeRequest& r) { r.table = "nothing"; },
      [](ComputeRequest& r) { r.version = 77; },
      [](ComputeRequest& r) { r.first_head = 1; },
      [](ComputeRequest& r) { r.q.sizes[1] = r.k.sizes[1] = r.v.sizes[1] = 1; },
  };
  for (const Change& change : changes) {
    ComputeRequest request = ViewOf(bytes, {1, 2, 3, 4}, DType::kFp32, Layout::kBatchHeadSequenceDim);
    change(request);
    const absl::Status expected = grpc.Compute(request).status();
    ASSERT_FALSE(expected.ok()) << &change - changes.data();
    EXPECT_EQ(local.Compute(request).status(), expected);  // the detail included
    EXPECT_EQ(test::ValueOf(local.ComputeFuture(request)).status(), expected);
  }
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  options.cancellation->Cancel();
  const ComputeRequest request = ViewOf(bytes, {1, 2, 3, 4}, DType::kFp32, Layout::kBatchHeadSequenceDim);
  EXPECT_EQ(local.Compute(request, options).status(), grpc.Compute(request, options).status());
  options.cancellation = nullptr;
  options.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(local.Compute(request, options).status(), grpc.Compute(request, options).status());
}

TEST_F(LocalFuturesTest, ServersWithoutTheOneOrTheOtherAreUsedAsFarAsTheyGo) {
  const std::string bytes = Numbers(1 << 16, DType::kFp32);
  const ComputeRequest small = ViewOf(bytes, {1, 2, 3, 4}, DType::kFp32, Layout::kBatchHeadSequenceDim);
  const ComputeRequest large = ViewOf(bytes, {1, 300, 300, 64}, DType::kFp32, Layout::kBatchHeadSequenceDim);
  const struct {
    bool calls, memory;
    Transport small, large;
  } kCases[] = {{true, true, Transport::kLocal, Transport::kLocal},
                {true, false, Transport::kLocal, Transport::kGrpc},
                {false, true, Transport::kGrpc, Transport::kSharedMemory},
                {false, false, Transport::kGrpc, Transport::kGrpc}};
  for (const auto& row : kCases) {
    Start([&](server::Options& options) {
      options.local_calls = row.calls;
      options.shared_memory = row.memory;
    });
    Client client = NewClient();
    EXPECT_EQ(client.GetServerInfo()->local_calls, row.calls);
    for (const bool later : {false, true}) {
      const auto a = later ? client.ComputeFuture(small).get() : client.Compute(small);
      const auto b = later ? client.ComputeFuture(large).get() : client.Compute(large);
      ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
      EXPECT_EQ(a->transport, row.small);
      EXPECT_EQ(b->transport, row.large);
      EXPECT_EQ(row.memory, server_->server().shared_memory() != nullptr && mapped() > 0);
    }
  }
}

TEST_F(LocalFuturesTest, ALongCallEndsWithItsCancellationAndItsDeadlineAlsoAtTheServer) {
  // Some seconds of work at least.
  const Shape shape{.batch = 1, .query_length = 64'000, .key_length = 64'000, .head_dim = 32};
  const std::string bytes = Numbers(64'000 * kHeads * 32, DType::kFp32);
  ComputeRequest request = ViewOf(bytes, shape, DType::kFp32, Layout::kBatchHeadSequenceDim);
  request.mask = Mask::kNone;
  Client client = NewClient();
  for (const bool later : {false, true}) {
    for (const bool cancelled : {false, true}) {
      CallOptions options;
      if (!cancelled) options.deadline = absl::Now() + absl::Milliseconds(300);
      options.cancellation = std::make_shared<Cancellation>();
      std::thread canceller([&] {
        if (!cancelled) return;
        EXPECT_TRUE(Becomes([&] { return server_->server().calls_in_flight() == 1; }));
        options.cancellation->Cancel();
      });
      const auto reply = later ? client.ComputeFuture(request, options).get() : client.Compute(request, options);
      canceller.join();
      EXPECT_EQ(reply.status().code(), cancelled ? absl::StatusCode::kCancelled : absl::StatusCode::kDeadlineExceeded)
          << reply.status();
      EXPECT_TRUE(Becomes([&] { return server_->server().calls_in_flight() == 0; }));
    }
  }
}

TEST_F(LocalFuturesTest, SixtyFourThreadsLeaveNoDescriptorAndNoRegion) {
  const std::string bytes = Numbers(1 << 16, DType::kFp32);
  const ComputeRequest small = ViewOf(bytes, {1, 2, 3, 4}, DType::kFp32, Layout::kBatchHeadSequenceDim);
  const ComputeRequest large = ViewOf(bytes, {1, 100, 100, 64}, DType::kFp32, Layout::kBatchHeadSequenceDim);
  {
    Client warm = NewClient();
    ASSERT_TRUE(warm.GetServerInfo().ok() && warm.Compute(small).ok() && test::ValueOf(warm.ComputeFuture(large)).ok());
  }
  ASSERT_TRUE(Becomes([&] { return mapped() == 0; }));
  absl::SleepFor(absl::Milliseconds(200));
  const std::size_t descriptors = OpenDescriptors();
  {
    Client client = NewClient();
    const std::string expected = OutputOf(*client.Compute(large));
    std::atomic<int> by_local{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 64; ++i) {
      threads.emplace_back([&, client]() mutable {
        for (int call = 0; call < 30; ++call) {
          const ComputeRequest& request = call % 8 == 0 ? large : small;
          const auto reply = client.ComputeFuture(request).get();
          ASSERT_TRUE(reply.ok()) << reply.status();
          by_local += reply->transport == Transport::kLocal ? 1 : 0;
          if (call % 8 == 0) {
            EXPECT_EQ(OutputOf(*reply), expected);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(by_local, 64 * 30);
  }
  EXPECT_TRUE(Becomes([&] { return mapped() == 0; }));
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; })) << OpenDescriptors() << " > " << descriptors;
}

TEST_F(LocalFuturesTest, AForkedChildIsRefusedAndTheParentsConnectionsAreItsOwn) {
  const std::string bytes = Numbers(1000, DType::kFp32);
  const ComputeRequest request = ViewOf(bytes, {1, 2, 3, 4}, DType::kFp32, Layout::kBatchHeadSequenceDim);
  auto client = std::make_unique<Client>(NewClient());
  ASSERT_TRUE(client->Compute(request).ok() && test::ValueOf(client->ComputeFuture(request)).ok());
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const bool refused = client->Compute(request).status().code() == absl::StatusCode::kFailedPrecondition &&
                         client->ComputeFuture(request).get().status().code() == absl::StatusCode::kFailedPrecondition;
    client.reset();
    _exit(refused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (int i = 0; i < 10; ++i) {
    const auto reply = i % 2 == 0 ? client->Compute(request) : test::ValueOf(client->ComputeFuture(request));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
  }
}

}  // namespace
}  // namespace attnd::e2e
