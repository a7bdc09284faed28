// Calls by datagrams, without a socket: what is answered, what ends a connection, and that nothing is left of either.
#include "server/attention/local_service.h"

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attention/calls.h"
#include "attention/held_kernel.h"
#include "attention/sink.h"
#include "attention/test_region.h"
#include "attnd/v1/local.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

using test::CallOf;
using test::CancelOf;
using test::Hello;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class LocalServiceTest : public testing::Test {
 protected:
  LocalServiceTest() {
    AddTestModel(registry_);
    Start(Limits());
  }
  ~LocalServiceTest() override { held_.Release(); }

  // With one computing thread, whose kernel can be held.
  void Start(const Limits& limits, bool enabled = true, const SharedMemory* memory = nullptr) {
    connection_.reset();
    service_.reset();
    engine_ = std::make_unique<AttentionEngine>(limits, registry_, held_.kernel(), 1, memory);
    service_ = std::make_unique<LocalService>(*engine_, gate_, enabled);
    Connect();
  }
  void Connect() {
    sink_ = std::make_shared<TestSink>();
    connection_ = service_->Connect({}, sink_);
  }

  absl::Status Take(const v1::LocalRequest& request) { return connection_->Take(request.SerializeAsString()); }
  void Greet() {
    ASSERT_TRUE(connection_->Take(Hello()).ok());
    ASSERT_EQ(sink_->Take().first.welcome().code(), 0);
  }

  // Begins a call that is held, and returns once it is.
  void BeginHeld(std::uint64_t id) {
    held_.Hold();
    ASSERT_TRUE(Take(CallOf(id, TestCall(kLarge).Message())).ok());
    ASSERT_TRUE(held_.AwaitHeld());
  }

  void ExpectIdle() {
    const absl::Time deadline = absl::Now() + kPatience;
    while (gate_.inside() != 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(gate_.inside(), 0);
    EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  }

  HeldKernel held_;
  model::Registry registry_{model::RegistryOptions{}};
  CallGate gate_;
  std::unique_ptr<AttentionEngine> engine_;
  std::unique_ptr<LocalService> service_;
  std::shared_ptr<TestSink> sink_;
  std::shared_ptr<LocalConnection> connection_;
};

TEST_F(LocalServiceTest, AWelcomeSaysWhatIsOffered) {
  ASSERT_TRUE(connection_->Take(Hello()).ok());
  const v1::LocalWelcome welcome = sink_->Take().first.welcome();
  EXPECT_EQ(welcome.code(), 0);
  EXPECT_EQ(welcome.message(), "");
  EXPECT_EQ(welcome.version(), 1U);
  EXPECT_EQ(welcome.max_message_bytes(), 65536U);
  EXPECT_EQ(welcome.max_calls(), 256U);
}

TEST_F(LocalServiceTest, AnotherVersionAndAServerWithoutCallsAreToldSo) {
  for (const std::uint32_t version : {0U, 2U, 4'000'000'000U}) {
    Connect();
    ASSERT_TRUE(connection_->Take(Hello(version)).ok());
    const v1::LocalWelcome welcome = sink_->Take().first.welcome();
    EXPECT_EQ(welcome.code(), static_cast<int>(absl::StatusCode::kUnimplemented));
    EXPECT_THAT(welcome.message(), StartsWith("version: expected 1, got "));
    EXPECT_EQ(welcome.version(), 1U);
    EXPECT_FALSE(Take(CallOf(1, TestCall().Message())).ok());
  }
  Start(Limits(), /*enabled=*/false);
  ASSERT_TRUE(connection_->Take(Hello()).ok());
  const v1::LocalWelcome welcome = sink_->Take().first.welcome();
  EXPECT_EQ(welcome.code(), static_cast<int>(absl::StatusCode::kUnimplemented));
  EXPECT_THAT(welcome.message(), HasSubstr("--nolocal_calls"));
  EXPECT_FALSE(Take(CallOf(1, TestCall().Message())).ok());
  EXPECT_EQ(sink_->size(), 0U);
  EXPECT_EQ(gate_.inside(), 0);
}

TEST_F(LocalServiceTest, AnswersWithWhatTheEngineComputes) {
  Greet();
  std::uint64_t id = std::numeric_limits<std::uint64_t>::max();
  for (const CallSizes& sizes : {CallSizes(), CallSizes{.queries = 100, .keys = 200, .head_dim = 8}}) {
    TestCall call(sizes);
    call.header.set_return_log_sum_exp(true);
    ASSERT_TRUE(Take(CallOf(id, call.Message())).ok());
    const v1::LocalAnswer answer = sink_->TakeAnswer();
    EXPECT_EQ(answer.id(), id--);
    ASSERT_EQ(answer.code(), 0) << answer.message();
    EXPECT_EQ(answer.message(), "");
    EXPECT_FALSE(answer.has_detail());
    const model::Model& model = **registry_.Find(kModel);
    EXPECT_EQ(answer.result().version(), model.version());
    EXPECT_EQ(answer.result().content_hash(), model.content_hash());
    EXPECT_EQ(answer.result().dtype(), v1::DTYPE_FP32);
    ExpectIsTheFormula(call, TestTable(false), answer.result().output(), answer.result().log_sum_exp());
    ExpectIdle();
  }
}

TEST_F(LocalServiceTest, WhatEndsAConnection) {
  const TestCall call;
  const std::string one = CallOf(1, call.Message()).SerializeAsString();
  const std::string huge(60'000, '\x0a');
  const struct {
    const char* what;
    std::vector<std::string> taken;
    std::string refused;
  } kCases[] = {
      {"nothing", {}, ""},
      {"noise", {}, "noise"},
      {"half a hello", {}, Hello().substr(0, 5)},
      {"half a call", {Hello()}, one.substr(0, one.size() - 1)},
      {"a kind from the future", {Hello()}, std::string("\x22\x00", 2)},
      {"a call before the hello", {}, one},
      {"a cancellation before the hello", {}, CancelOf(1)},
      {"a second hello", {Hello()}, Hello()},
      {"a second hello after a refused one", {Hello(9)}, Hello()},
      {"length prefixes without an end", {Hello()}, huge},
      {"what is wrong beside the request", {Hello()}, one + std::string("\x12\x02\x08", 3)},
      {"a field beside the call that is no field", {Hello()}, one + "\x07"},
  };
  for (const auto& c : kCases) {
    Connect();
    for (const std::string& taken : c.taken) ASSERT_TRUE(connection_->Take(taken).ok()) << c.what;
    const std::size_t sent = sink_->size();
    const absl::Status status = connection_->Take(c.refused);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.what;
    EXPECT_EQ(sink_->size(), sent) << c.what << ": it is to be ended, and nothing else";
    connection_->Close();
    EXPECT_EQ(gate_.inside(), 0) << c.what;
  }
}

TEST_F(LocalServiceTest, AnIdThatIsUnderWayEndsTheConnectionAndOneThatIsAnsweredDoesNot) {
  Greet();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Take(CallOf(5, TestCall().Message())).ok());
    EXPECT_EQ(sink_->TakeAnswer().code(), 0);
  }
  BeginHeld(5);
  EXPECT_TRUE(Take(CallOf(6, TestCall().Message())).ok());
  EXPECT_EQ(sink_->TakeAnswer().id(), 6U);
  EXPECT_FALSE(Take(CallOf(5, TestCall().Message())).ok());
  connection_->Close();
  held_.Release();
  ExpectIdle();
}

TEST_F(LocalServiceTest, ARequestThatIsNoneIsAnswered) {
  Greet();
  const std::string bad_utf8("\x12\x09\x08\x2a\x1a\x05\x0a\x03t\xffx", 11);
  ASSERT_TRUE(connection_->Take(bad_utf8).ok());
  const v1::LocalAnswer answer = sink_->TakeAnswer();
  EXPECT_EQ(answer.id(), 42U);
  EXPECT_EQ(answer.code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(answer.detail().field(), "model");
  BeginHeld(42);
  EXPECT_FALSE(connection_->Take(bad_utf8).ok()) << "its id is under way";
  connection_->Close();
  Connect();
  EXPECT_FALSE(connection_->Take(bad_utf8).ok()) << "before the hello";
}

TEST_F(LocalServiceTest, TimeoutsThatAreNoneAreRefused) {
  Greet();
  const struct {
    std::int64_t seconds;
    std::int32_t nanos;
    int code;
  } kCases[] = {
      {-1, 0, 3},
      {0, -1, 3},
      {0, 1'000'000'000, 3},
      {315'576'000'001, 0, 3},
      {std::numeric_limits<std::int64_t>::max(), 0, 3},
      {std::numeric_limits<std::int64_t>::min(), 0, 3},
      {1, -1, 3},
      {0, 0, 4},
      {315'576'000'000, 999'999'999, 0},
      {20, 0, 0},
  };
  for (const auto& c : kCases) {
    v1::LocalRequest request = CallOf(1, TestCall().Message());
    request.mutable_call()->mutable_timeout()->set_seconds(c.seconds);
    request.mutable_call()->mutable_timeout()->set_nanos(c.nanos);
    ASSERT_TRUE(Take(request).ok());
    const v1::LocalAnswer answer = sink_->TakeAnswer();
    EXPECT_EQ(answer.code(), c.code) << c.seconds << " " << c.nanos << ": " << answer.message();
    EXPECT_EQ(answer.detail().field(), c.code == 3 ? "timeout" : "");
  }
  ExpectIdle();
}

TEST_F(LocalServiceTest, ADeadlineEndsACall) {
  Greet();
  BeginHeld(1);
  v1::LocalRequest late = CallOf(2, TestCall(kLarge).Message());
  late.mutable_call()->mutable_timeout()->set_nanos(1'000'000);
  ASSERT_TRUE(Take(late).ok());
  absl::SleepFor(absl::Milliseconds(2));
  held_.Release();
  const v1::LocalAnswer first = sink_->TakeAnswer();
  const v1::LocalAnswer second = sink_->TakeAnswer();
  EXPECT_EQ((first.id() == 2 ? first : second).code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  ExpectIdle();
}

TEST_F(LocalServiceTest, ACancellationEndsItsCallAlone) {
  Greet();
  BeginHeld(1);
  for (const std::uint64_t id : {2U, 3U}) ASSERT_TRUE(Take(CallOf(id, TestCall(kLarge).Message())).ok());
  ASSERT_TRUE(connection_->Take(CancelOf(99)).ok()) << "an id that is not under way";
  EXPECT_EQ(sink_->size(), 0U);
  ASSERT_TRUE(connection_->Take(CancelOf(2)).ok());
  const v1::LocalAnswer answer = sink_->TakeAnswer();
  EXPECT_EQ(answer.id(), 2U);
  EXPECT_EQ(answer.code(), static_cast<int>(absl::StatusCode::kCancelled));
  held_.Release();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(sink_->TakeAnswer().code(), 0);
  ExpectIdle();
  EXPECT_EQ(sink_->size(), 0U);
}

TEST_F(LocalServiceTest, TheEndOfAConnectionCancelsItsCallsAndAnswersNone) {
  Greet();
  BeginHeld(1);
  for (std::uint64_t id = 2; id < 10; ++id) ASSERT_TRUE(Take(CallOf(id, TestCall(kLarge).Message())).ok());
  EXPECT_EQ(gate_.inside(), 9);
  connection_->Close();
  EXPECT_EQ(gate_.inside(), 1) << "those that waited have ended";
  connection_.reset();
  held_.Release();
  ExpectIdle();
  EXPECT_EQ(sink_->size(), 0U);
}

TEST_F(LocalServiceTest, MoreCallsThanThereMayBeAreAnsweredSo) {
  Greet();
  BeginHeld(0);
  for (std::uint64_t id = 1; id < kMaxLocalCalls; ++id) {
    ASSERT_TRUE(Take(CallOf(id, TestCall(kLarge).Message())).ok());
  }
  EXPECT_EQ(gate_.inside(), kMaxLocalCalls);
  EXPECT_EQ(sink_->size(), 0U);
  ASSERT_TRUE(Take(CallOf(1000, TestCall().Message())).ok());
  v1::LocalAnswer answer = sink_->TakeAnswer();
  EXPECT_EQ(answer.id(), 1000U);
  EXPECT_EQ(answer.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(answer.message(), HasSubstr("256 calls"));
  ASSERT_TRUE(connection_->Take(CancelOf(7)).ok());
  EXPECT_EQ(sink_->TakeAnswer().id(), 7U);
  ASSERT_TRUE(Take(CallOf(1000, TestCall(kLarge).Message())).ok());
  EXPECT_EQ(gate_.inside(), kMaxLocalCalls);
  connection_->Close();
  held_.Release();
  ExpectIdle();
}

TEST_F(LocalServiceTest, ResultsWithoutRoomAreRefusedBeforeTheyAreComputed) {
  Greet();
  const struct {
    std::int64_t queries;
    bool log_sum_exp;
    const char* field;  // null: it has room
  } kCases[] = {{4032, true, nullptr}, {4033, true, "log_sum_exp"}, {8064, false, nullptr}, {8065, false, "output"}};
  for (const auto& c : kCases) {
    TestCall call({.queries = c.queries, .keys = 1, .head_dim = 1, .value_head_dim = 1});
    call.header.set_return_log_sum_exp(c.log_sum_exp);
    const std::int64_t steps = held_.steps();
    ASSERT_TRUE(Take(CallOf(1, call.Message())).ok());
    const v1::LocalAnswer answer = sink_->TakeAnswer();
    if (c.field == nullptr) {
      EXPECT_EQ(answer.code(), 0) << answer.message();
      ExpectIsTheFormula(call, TestTable(false), answer.result().output(), answer.result().log_sum_exp());
      continue;
    }
    EXPECT_EQ(answer.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
    EXPECT_EQ(answer.detail().field(), c.field);
    EXPECT_THAT(answer.detail().expected(), AllOf(HasSubstr("output_shared"), HasSubstr("log_sum_exp_shared")));
    EXPECT_THAT(answer.detail().expected(), AllOf(HasSubstr("64512"), HasSubstr("gRPC")));
    EXPECT_EQ(held_.steps(), steps);
  }
  ExpectIdle();
}

TEST_F(LocalServiceTest, ACallHoldsTheGateAndAResultItsMemoryUntilTheAnswerIsSent) {
  Greet();
  ASSERT_TRUE(Take(CallOf(1, TestCall().Message())).ok());
  auto [reply, held] = sink_->Take();
  EXPECT_EQ(reply.answer().code(), 0);
  EXPECT_EQ(gate_.inside(), 1);
  EXPECT_EQ(InflightBytes(*engine_), static_cast<std::int64_t>(reply.answer().result().output().size()))
      << "the request is gone";
  connection_->Close();
  EXPECT_EQ(gate_.inside(), 1);
  held.reset();
  EXPECT_EQ(gate_.inside(), 0);
  EXPECT_EQ(InflightBytes(*engine_), 0);
}

// Output and log-sum-exp each sent or shared, and what the call holds until its answer is sent: what is sent.
TEST_F(LocalServiceTest, ResultsAreSentOrShared) {
  TestRegion region;
  Start(Limits(), true, &region.memory);
  Greet();
  for (const bool output_is_shared : {false, true}) {
    for (const int sums : {0, 1, 2}) {  // none, sent, shared
      SCOPED_TRACE(testing::Message() << output_is_shared << ", " << sums);
      TestCall call;
      call.header.set_return_log_sum_exp(sums != 0);
      if (output_is_shared) *call.header.mutable_output_shared() = region.At(0);
      if (sums == 2) *call.header.mutable_log_sum_exp_shared() = region.At(1 << 19);
      ASSERT_TRUE(Take(CallOf(1, call.Message())).ok());
      auto [reply, held] = sink_->Take();
      ASSERT_EQ(reply.answer().code(), 0) << reply.answer().message();
      const v1::ComputeAttentionResponse& result = reply.answer().result();
      EXPECT_EQ(InflightBytes(*engine_),
                static_cast<std::int64_t>(result.output().size() + result.log_sum_exp().size()));
      constexpr std::size_t kRows = 5 * kHeads * sizeof(float);
      EXPECT_EQ(result.output().empty(), output_is_shared);
      EXPECT_EQ(result.log_sum_exp().empty(), sums != 1);
      ExpectIsTheFormula(call, TestTable(false), output_is_shared ? region.Read(0, 4 * kRows) : result.output(),
                         sums == 2 ? region.Read(1 << 19, kRows) : result.log_sum_exp());
      held.reset();
      ExpectIdle();
    }
  }
}

TEST_F(LocalServiceTest, ARequestUpToTheLimit) {
  const TestCall call;
  const auto size = static_cast<std::int64_t>(call.Message().ByteSizeLong());
  for (const std::int64_t limit : {size, size - 1}) {
    Limits limits;
    limits.max_request_bytes = limit;
    Start(limits);
    Greet();
    ASSERT_TRUE(Take(CallOf(1, call.Message())).ok());
    const v1::LocalAnswer answer = sink_->TakeAnswer();
    EXPECT_EQ(answer.code(), limit < size ? static_cast<int>(absl::StatusCode::kResourceExhausted) : 0);
    ExpectIdle();
  }
}

// By each way out, while others are under way: its id is free when its answer is sent, and nothing of it is left.
TEST_F(LocalServiceTest, AnIdIsFreeAfterEachWayOut) {
  Greet();
  const v1::ComputeAttentionRequest good = TestCall().Message();
  v1::ComputeAttentionRequest refused = good;
  refused.set_head_dim(0);
  v1::LocalRequest late = CallOf(5, good), no_time = CallOf(5, good);
  late.mutable_call()->mutable_timeout();
  no_time.mutable_call()->mutable_timeout()->set_nanos(-1);
  const struct {
    v1::LocalRequest request;
    absl::StatusCode code;
  } kWays[] = {{CallOf(5, good), absl::StatusCode::kOk},
               {CallOf(5, refused), absl::StatusCode::kInvalidArgument},
               {late, absl::StatusCode::kDeadlineExceeded},
               {no_time, absl::StatusCode::kInvalidArgument}};
  for (int round = 0; round < 2; ++round) {
    for (const auto& way : kWays) {
      ASSERT_TRUE(Take(way.request).ok()) << "its id is in use";
      EXPECT_EQ(sink_->TakeAnswer().code(), static_cast<int>(way.code));
      ExpectIdle();
    }
    BeginHeld(4);
    ASSERT_TRUE(Take(CallOf(5, TestCall(kLarge).Message())).ok());
    ASSERT_TRUE(connection_->Take(CancelOf(5)).ok());
    EXPECT_EQ(sink_->TakeAnswer().code(), static_cast<int>(absl::StatusCode::kCancelled));
    EXPECT_EQ(gate_.inside(), 1);
    ASSERT_TRUE(connection_->Take(CancelOf(4)).ok());
    held_.ReleaseSlowly();
    EXPECT_EQ(sink_->TakeAnswer().id(), 4U);
    held_.Release();
    ExpectIdle();
  }
}

TEST_F(LocalServiceTest, AClosedGateAnswersThatTheServerStops) {
  Greet();
  BeginHeld(1);
  gate_.Close();
  ASSERT_TRUE(Take(CallOf(2, TestCall().Message())).ok());
  const v1::LocalAnswer answer = sink_->TakeAnswer();
  EXPECT_EQ(answer.id(), 2U);
  EXPECT_EQ(answer.code(), static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_EQ(answer.message(), StoppingError().message());
  held_.Release();
  EXPECT_EQ(sink_->TakeAnswer().id(), 1U) << "what has begun is finished";
  ExpectIdle();
}

TEST_F(LocalServiceTest, LimitsHoldForLocalCallsToo) {
  Limits limits;
  limits.max_request_bytes = 500;
  Start(limits);
  Greet();
  const auto answer = [&](const TestCall& call) {
    EXPECT_TRUE(Take(CallOf(1, call.Message())).ok());
    return sink_->TakeAnswer();
  };
  EXPECT_EQ(answer(TestCall({.queries = 1, .keys = 1})).code(), 0);
  const v1::LocalAnswer large = answer(TestCall());
  EXPECT_EQ(large.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(large.detail().field(), "request");
  EXPECT_THAT(large.detail().expected(), HasSubstr("--max_request_bytes"));
  limits.max_inflight_bytes = 100;
  Start(limits);
  Greet();
  const v1::LocalAnswer packed = answer(TestCall({.queries = 1, .keys = 1}));
  EXPECT_EQ(packed.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(packed.detail().expected(), HasSubstr("--max_inflight_bytes"));
}

}  // namespace
}  // namespace attnd::server
