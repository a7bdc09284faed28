// Calls over the socket beside the Unix socket, against a real server: the same as by gRPC, bit for bit, and callers
// who break off, do not read, or say what nobody can understand.

#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "process.h"
#include "raw_region.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using test::Becomes;
using test::CallOf;
using test::CancelOf;
using test::Hello;
using test::LocalCaller;
using test::OpenDescriptors;
using test::RawRegion;

constexpr int kCancelled = static_cast<int>(grpc::StatusCode::CANCELLED);
constexpr int kUnavailable = static_cast<int>(grpc::StatusCode::UNAVAILABLE);

class LocalCallsTest : public testing::Test {
 protected:
  void SetUp() override { Start(absl::Seconds(600)); }

  void Start(absl::Duration drain) {
    server::Options options = TestOptions();
    options.listen = {"unix:" + folder_.path() + "/s"};
    options.threads = 1;
    options.drain = drain;
    server_.reset();
    server_ = std::make_unique<TestServer>(options);
  }
  std::string path() const { return folder_.path() + "/s.shm"; }
  std::int64_t in_flight() const { return server_->server().calls_in_flight(); }

  std::unique_ptr<LocalCaller> Greeted() const {
    auto caller = std::make_unique<LocalCaller>(path());
    EXPECT_EQ(caller->Greet().code(), 0);
    return caller;
  }

  // Some hundred milliseconds of one core at the least, in shared memory.
  static v1::ComputeAttentionRequest Long(const RawRegion& region) {
    const v1::ComputeAttentionRequest sent =
        ValidRequest({.batch = 1, .query_length = 32000, .key_length = 2000, .head_dim = 32});
    return region.Shared(sent, sent.q().size());
  }
  static constexpr std::size_t kLongBytes = std::size_t{2} * (32000 + 2000) * kHeads * 32 * sizeof(float) + 4096;

  const test::TempFolder folder_;
  std::unique_ptr<TestServer> server_;
};

void ExpectSame(const v1::ComputeAttentionResponse& got, const v1::ComputeAttentionResponse& expected) {
  EXPECT_EQ(got.version(), expected.version());
  EXPECT_EQ(got.content_hash(), expected.content_hash());
  EXPECT_EQ(got.dtype(), expected.dtype());
  EXPECT_EQ(got.output(), expected.output());
  EXPECT_EQ(got.log_sum_exp(), expected.log_sum_exp());
}

TEST_F(LocalCallsTest, ResultsAreThoseOfGrpcBitForBit) {
  const auto caller = Greeted();
  const RawRegion region(caller->raw(), 1 << 20);
  std::uint64_t id = 0;
  for (const Shape& shape : {Shape(), Shape{.batch = 1, .query_length = 1, .key_length = 1, .head_dim = 1},
                             Shape{.batch = 1, .query_length = 90, .key_length = 100, .head_dim = 16}}) {
    for (const v1::Dtype dtype : {v1::DTYPE_FP32, v1::DTYPE_FP16, v1::DTYPE_BF16}) {
      for (const v1::Layout layout : {v1::LAYOUT_UNSPECIFIED, v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM}) {
        for (const v1::Mask mask : {v1::MASK_UNSPECIFIED, v1::MASK_NONE, v1::MASK_CAUSAL}) {
          v1::ComputeAttentionRequest request = ValidRequest(shape);
          for (std::string* bytes : {request.mutable_q(), request.mutable_k(), request.mutable_v()}) {
            // The upper halves of floats are numbers of about their size as BF16, and some numbers as FP16.
            if (dtype == v1::DTYPE_FP32) continue;
            std::string halves;
            for (std::size_t i = 2; i < bytes->size(); i += 4) halves += bytes->substr(i, 2);
            *bytes = halves;
          }
          request.set_dtype(dtype);
          request.set_layout(layout);
          request.set_mask(mask);
          request.set_return_log_sum_exp(id % 3 != 0);
          request.set_output_dtype(id % 2 == 0 ? v1::DTYPE_UNSPECIFIED : v1::DTYPE_FP32);
          v1::ComputeAttentionResponse expected;
          ASSERT_TRUE(server_->Compute(request, &expected).ok());
          v1::LocalAnswer sent = caller->Call(request, ++id);
          ASSERT_EQ(sent.code(), 0) << sent.message();
          ExpectSame(sent.result(), expected);

          const v1::ComputeAttentionRequest shared = region.Shared(request, expected.output().size());
          v1::LocalAnswer answer = caller->Call(shared, ++id);
          ASSERT_EQ(answer.code(), 0) << answer.message();
          EXPECT_EQ(answer.result().output() + answer.result().log_sum_exp(), "");
          answer.mutable_result()->set_output(region.Read(shared.output_shared(), expected.output().size()));
          answer.mutable_result()->set_log_sum_exp(
              region.Read(shared.log_sum_exp_shared(), expected.log_sum_exp().size()));
          ExpectSame(answer.result(), expected);
        }
      }
    }
  }
}

TEST_F(LocalCallsTest, ADeadlineAndACancellationEndALongCall) {
  const auto caller = Greeted();
  const RawRegion region(caller->raw(), kLongBytes);
  const v1::ComputeAttentionRequest request = Long(region);
  v1::LocalRequest late = CallOf(1, request);
  late.mutable_call()->mutable_timeout()->set_nanos(1'000'000);
  ASSERT_TRUE(caller->Send(late));
  EXPECT_EQ(caller->Answer().code(), static_cast<int>(grpc::StatusCode::DEADLINE_EXCEEDED));
  ASSERT_TRUE(caller->Send(CallOf(2, request)));
  ASSERT_TRUE(Becomes([&] { return in_flight() == 1; }));
  ASSERT_TRUE(caller->raw().Send(CancelOf(2)));
  const v1::LocalAnswer answer = caller->Answer();
  EXPECT_EQ(answer.id(), 2U);
  EXPECT_EQ(answer.code(), kCancelled);
  EXPECT_EQ(caller->Call(ValidRequest()).code(), 0);
}

// The calls would take ten times as long as the test waits for them. They are over in time because the server ends the
// calls of a connection that has closed.
TEST_F(LocalCallsTest, TheEndOfAConnectionEndsItsCalls) {
  const std::size_t descriptors = OpenDescriptors();
  for (const bool shut_down_only : {true, false}) {
    auto caller = Greeted();
    auto region = std::make_unique<RawRegion>(caller->raw(), kLongBytes);
    const v1::ComputeAttentionRequest request = Long(*region);
    const absl::Time first = absl::Now();
    EXPECT_EQ(caller->Call(request).code(), 0);
    const absl::Duration one = absl::Now() - first;
    for (std::uint64_t id = 0; id < 100; ++id) ASSERT_TRUE(caller->Send(CallOf(id, request)));
    ASSERT_TRUE(Becomes([&] { return in_flight() > 90; }));
    const absl::Time begin = absl::Now();
    if (shut_down_only) {
      shutdown(caller->raw().fd(), SHUT_WR);
    } else {
      caller.reset();
    }
    EXPECT_TRUE(Becomes([&] { return in_flight() == 0; }));
    EXPECT_LT(absl::Now() - begin, 10 * one);
    caller.reset();
    EXPECT_TRUE(Becomes([&] { return server_->server().shared_memory()->mapped_bytes() == 0; }));
  }
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; }));
}

TEST_F(LocalCallsTest, WhoCannotBeUnderstoodLosesTheConnectionAndNobodyElseDoes) {
  const auto good = Greeted();
  const RawRegion region(good->raw(), 1 << 16);
  const std::size_t descriptors = OpenDescriptors();
  const std::string call = CallOf(3, ValidRequest()).SerializeAsString();
  v1::ComputeAttentionRequest large = ValidRequest();
  large.set_q(std::string(65'600, 'q'));
  const int fd = good->raw().fd();
  const struct {
    const char* what;
    std::vector<std::string> first;
    std::string bytes;
    std::vector<int> fds;
  } kCases[] = {
      {"half a hello", {}, Hello().substr(0, 3), {}},
      {"a call before the hello", {}, call, {}},
      {"two hellos", {Hello()}, Hello(), {}},
      {"half a call", {Hello()}, call.substr(0, call.size() / 2), {}},
      {"a datagram that is too large", {Hello()}, CallOf(3, large).SerializeAsString(), {}},
      {"an empty datagram", {Hello()}, "", {}},
      {"a descriptor with a hello", {}, Hello(), {fd}},
      {"a descriptor with a call", {Hello()}, call, {fd}},
      {"many descriptors", {Hello()}, call, std::vector<int>(253, fd)},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.what);
    const LocalCaller bad(path());
    for (const std::string& bytes : c.first) {
      ASSERT_TRUE(bad.raw().Send(bytes));
      ASSERT_TRUE(bad.Receive().has_value());
    }
    ASSERT_TRUE(bad.raw().Send(c.bytes, c.fds));
    EXPECT_FALSE(bad.Receive().has_value());
    EXPECT_EQ(good->Call(ValidRequest()).code(), 0);
  }
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; }));
  EXPECT_EQ(server_->server().shared_memory()->mapped_bytes(), 1 << 16);
}

TEST_F(LocalCallsTest, ASlowReaderHoldsUpNobodyAndGetsEveryAnswer) {
  const auto slow = Greeted();
  const auto other = Greeted();
  // Answers of some 51 KB.
  const v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 800, .key_length = 1, .head_dim = 8});
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server_->Compute(request, &expected).ok());
  v1::ComputeAttentionRequest shared = request;
  const RawRegion region(slow->raw(), 1 << 20);
  shared = region.Shared(request, expected.output().size());
  shared.clear_output_shared();
  constexpr std::uint64_t kCalls = 200;
  std::thread sender([&] {
    for (std::uint64_t id = 0; id < kCalls; ++id) ASSERT_TRUE(slow->Send(CallOf(id, shared)));
  });
  // Those that wait to be sent are in flight as well.
  ASSERT_TRUE(Becomes([&] { return in_flight() > 0; }));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(other->Call(ValidRequest()).code(), 0);
  std::vector<bool> answered(kCalls);
  for (std::uint64_t i = 0; i < kCalls; ++i) {
    const v1::LocalAnswer answer = slow->Answer();
    ASSERT_EQ(answer.code(), 0) << answer.message();
    ASSERT_LT(answer.id(), kCalls);
    EXPECT_FALSE(answered[answer.id()]);
    answered[answer.id()] = true;
    EXPECT_EQ(answer.result().output(), expected.output());
  }
  sender.join();
  EXPECT_TRUE(Becomes([&] { return in_flight() == 0; }));
}

TEST_F(LocalCallsTest, ManyConnectionsAtOnce) {
  const v1::ComputeAttentionRequest request = ValidRequest();
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server_->Compute(request, &expected).ok());
  const std::size_t descriptors = OpenDescriptors();
  constexpr int kThreads = 8, kConnections = 40, kCalls = 10;
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<LocalCaller>> callers;
      for (int i = 0; i < kConnections; ++i) callers.push_back(Greeted());
      for (std::uint64_t id = 0; id < kCalls; ++id) {
        for (const auto& caller : callers) caller->Send(CallOf(id, request));
        for (const auto& caller : callers) right += caller->Answer().result().output() == expected.output() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right.load(), kThreads * kConnections * kCalls);
  EXPECT_TRUE(Becomes([&] { return in_flight() == 0; }));
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; }));
}

TEST_F(LocalCallsTest, AsManyCallsUnderWayAsWereOffered) {
  auto caller = std::make_unique<LocalCaller>(path());
  const std::uint32_t most = caller->Greet().max_calls();
  EXPECT_EQ(most, 256U);
  const RawRegion region(caller->raw(), kLongBytes);
  const v1::ComputeAttentionRequest request = Long(region);
  // They are computed one after the other: some may be answered meanwhile.
  constexpr std::uint64_t kMore = 20;
  for (std::uint64_t id = 0; id < most + kMore; ++id) ASSERT_TRUE(caller->Send(CallOf(id, request)));
  std::uint64_t answered = 1;
  v1::LocalAnswer answer = caller->Answer();
  for (; answer.code() == 0; ++answered) answer = caller->Answer();
  EXPECT_LT(answered, kMore);
  EXPECT_GE(answer.id(), most);
  EXPECT_EQ(answer.code(), static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED));
  EXPECT_THAT(answer.message(), testing::HasSubstr("256 calls"));
  EXPECT_LE(in_flight(), most);
  for (std::uint64_t id = 0; id < most + kMore; ++id) ASSERT_TRUE(caller->raw().Send(CancelOf(id)));
  for (; answered < most + kMore; ++answered) {
    EXPECT_THAT(caller->Answer().code(),
                testing::AnyOf(0, kCancelled, static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED)));
  }
  EXPECT_EQ(caller->Call(ValidRequest()).code(), 0);
}

TEST_F(LocalCallsTest, AStoppingServerFinishesWhatHasBegun) {
  const auto caller = Greeted();
  const auto idle = Greeted();
  const RawRegion region(caller->raw(), kLongBytes);
  const v1::ComputeAttentionRequest request = Long(region);
  for (const std::uint64_t id : {1U, 2U}) ASSERT_TRUE(caller->Send(CallOf(id, request)));
  ASSERT_TRUE(Becomes([&] { return in_flight() == 2; }));
  std::thread stop([&] { EXPECT_EQ(server_->server().Stop().cut_off, 0); });
  ASSERT_TRUE(Becomes([&] { return !LocalCaller(path()).raw().connected(); }));
  const v1::LocalAnswer refused = idle->Call(ValidRequest(), 3);
  EXPECT_EQ(refused.code(), kUnavailable);
  EXPECT_EQ(refused.message(), "the server is stopping; the call was not begun");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(caller->Answer().code(), 0);
  EXPECT_FALSE(caller->Receive().has_value());
  EXPECT_FALSE(idle->Receive().has_value());
  stop.join();
  EXPECT_EQ(in_flight(), 0);
}

TEST_F(LocalCallsTest, AStoppingServerWaitsUntilAnswersAreRead) {
  const auto slow = Greeted();
  const RawRegion region(slow->raw(), 1 << 20);
  const v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 800, .key_length = 1, .head_dim = 8});
  v1::ComputeAttentionRequest shared = region.Shared(request, request.q().size());
  shared.clear_output_shared();
  constexpr int kCalls = 20;
  for (std::uint64_t id = 0; id < kCalls; ++id) {
    if (!slow->raw().Send(CallOf(id, shared).SerializeAsString(), {}, /*wait=*/false)) break;
  }
  ASSERT_TRUE(Becomes([&] { return in_flight() > 0; }));
  absl::SleepFor(absl::Milliseconds(100));  // until the socket is full
  ASSERT_GT(in_flight(), 0);
  std::thread stop([&] { EXPECT_EQ(server_->server().Stop().cut_off, 0); });
  absl::SleepFor(absl::Milliseconds(600));
  EXPECT_GT(in_flight(), 0);
  int ok = 0, refused = 0;
  while (const auto reply = slow->Receive()) {
    ok += reply->answer().code() == 0 ? 1 : 0;
    refused += reply->answer().code() == kUnavailable ? 1 : 0;
  }
  stop.join();
  EXPECT_GT(ok, 0);
  EXPECT_EQ(ok + refused, kCalls);
}

TEST_F(LocalCallsTest, WhatIsLeftAfterTheDrainTimeIsCutOff) {
  Start(absl::ZeroDuration());
  const auto caller = Greeted();
  const RawRegion region(caller->raw(), kLongBytes);
  const v1::ComputeAttentionRequest request = Long(region);
  for (const std::uint64_t id : {1U, 2U, 3U}) ASSERT_TRUE(caller->Send(CallOf(id, request)));
  ASSERT_TRUE(Becomes([&] { return in_flight() == 3; }));
  EXPECT_EQ(server_->server().Stop().cut_off, 3);
  EXPECT_FALSE(caller->Receive().has_value());
}

// The binary, by its flags.
TEST_F(LocalCallsTest, FlagsTurnCallsAndMemoryOff) {
  const std::string socket = folder_.path() + "/flags";
  v1::ComputeAttentionRequest request = ValidRequest();
  request.set_model("book");  // which has one head
  request.set_batch(request.batch() * kHeads);
  request.set_heads(1);
  const struct {
    std::vector<std::string> flags;
    bool memory;
    bool calls;
  } kCases[] = {{{}, true, true},
                {{"--noshared_memory"}, false, true},
                {{"--nolocal_calls"}, true, false},
                {{"--noshared_memory", "--nolocal_calls"}, false, false}};
  for (const auto& c : kCases) {
    std::vector<std::string> arguments = {"--listen=unix:" + socket};
    arguments.insert(arguments.end(), c.flags.begin(), c.flags.end());
    Process attnd(arguments);
    const auto stub = v1::ServerService::NewStub(NewChannel(attnd.WaitForAddress()));
    grpc::ClientContext context;
    v1::GetServerInfoResponse info;
    ASSERT_TRUE(stub->GetServerInfo(&context, {}, &info).ok());
    EXPECT_EQ(info.local_calls(), c.calls);
    EXPECT_EQ(info.limits().max_shared_bytes() > 0, c.memory);
    const LocalCaller caller(socket + ".shm");
    EXPECT_EQ(caller.raw().connected(), c.memory || c.calls);
    if (!caller.raw().connected()) continue;
    EXPECT_EQ(caller.Greet().code(), c.calls ? 0 : static_cast<int>(grpc::StatusCode::UNIMPLEMENTED));
    if (c.memory) RawRegion region(caller.raw(), 4096);
    EXPECT_TRUE(!c.calls || caller.Call(request).code() == 0);
    attnd.Signal(SIGTERM);
    EXPECT_FALSE(caller.Receive().has_value());
    EXPECT_EQ(attnd.Wait(), 0) << attnd.output();
    EXPECT_FALSE(std::filesystem::exists(socket + ".shm"));
  }
}

TEST_F(LocalCallsTest, AServerThatStartedAnewKnowsNoRegion) {
  v1::ComputeAttentionRequest shared;
  {
    const auto caller = Greeted();
    const RawRegion region(caller->raw(), 1 << 16);
    shared = region.Shared(ValidRequest(), ValidRequest().q().size());
    EXPECT_EQ(caller->Call(shared).code(), 0);
    Start(absl::Seconds(600));
    EXPECT_FALSE(caller->Receive().has_value());
  }
  const v1::LocalAnswer answer = Greeted()->Call(shared);
  EXPECT_EQ(answer.code(), static_cast<int>(grpc::StatusCode::FAILED_PRECONDITION));
  EXPECT_EQ(answer.detail().field(), "q_shared.region");
}

}  // namespace
}  // namespace attnd::e2e
