// The numbers themselves are tested in tests/kernel, what is refused and how in validation_test.cc and
// tests/e2e/bad_input_test.cc. Here: every request ends with one `done`, and whatever the way, holds nothing after it.

#include "server/attention/engine.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attention/calls.h"
#include "attention/held_kernel.h"
#include "attnd/shm/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {
namespace {

using testing::StartsWith;

std::string_view BytesOf(const Buffer& buffer) { return {reinterpret_cast<const char*>(buffer.data()), buffer.size()}; }

// What `done` was called with, and how often.
class Answer {
 public:
  AttentionEngine::Done done() {
    return [state = state_](absl::StatusOr<AttentionResult> result) {
      if (++state->calls > 1) return;
      state->result = std::move(result);
      state->first.Notify();
    };
  }

  bool is_there() const { return state_->first.HasBeenNotified(); }
  int calls() const { return state_->calls; }

  // The result, once it is there.
  absl::StatusOr<AttentionResult>& Wait() {
    if (!state_->first.WaitForNotificationWithTimeout(kPatience)) {
      ADD_FAILURE() << "no answer";
      static absl::StatusOr<AttentionResult> none = absl::UnknownError("no answer");
      return none;
    }
    return state_->result;
  }
  absl::StatusCode WaitForCode() { return Wait().status().code(); }

 private:
  struct State {
    absl::Notification first;
    std::atomic<int> calls{0};
    absl::StatusOr<AttentionResult> result;
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

void WithoutBias(v1::ComputeAttentionRequest& request) {
  request.set_bias(v1::BIAS_NONE);
  request.clear_model();
}

// What a request's message holds.
std::int64_t RequestBytes(const TestCall& call) {
  const std::size_t key_bias = static_cast<std::size_t>(call.header.key_bias_size()) * sizeof(float);
  return static_cast<std::int64_t>(call.q.size() + call.k.size() + call.v.size() + call.header.key_bits().size() +
                                   key_bias);
}

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    AddTestModel(registry_);
    Start(Limits());
  }
  ~EngineTest() override { held_.Release(); }

  // An engine with one thread, so that what is held holds all that comes after it.
  void Start(const Limits& limits, const SharedMemory* memory = nullptr) {
    engine_ = std::make_unique<AttentionEngine>(limits, registry_, held_.kernel(), 1, memory);
  }

  void Compute(const TestCall& call, const RequestTensors& tensors, Answer& answer,
               const schedule::SubmitOptions& options = {}) {
    engine_->Compute(call.header, tensors, options, answer.done());
  }

  // Ends the engine, after which nothing can call `done` any more.
  void ExpectAnsweredOnce(const Answer& answer) {
    held_.Release();
    engine_.reset();
    EXPECT_EQ(answer.calls(), 1);
  }

  HeldKernel held_;
  model::Registry registry_{model::RegistryOptions{}};
  std::unique_ptr<AttentionEngine> engine_;
};

TEST_F(EngineTest, ComputesTheFormula) {
  const struct {
    const char* name;
    CallSizes sizes;
    std::function<void(v1::ComputeAttentionRequest&)> change;
    bool bidirectional = false;
  } kCases[] = {
      {"defaults", {}, [](auto&) {}},
      {"one element", {.queries = 1, .keys = 1, .head_dim = 1, .value_head_dim = 1}, [](auto&) {}},
      {"many tiles", {.queries = 200, .keys = 300, .head_dim = 32, .value_head_dim = 16}, [](auto&) {}},
      {"few queries", {.batch = 2, .queries = 1, .keys = 400, .head_dim = 32, .value_head_dim = 32}, [](auto&) {}},
      {"encoder", {}, [](auto& r) { r.set_table("encoder"); }, true},
      {"encoder of a layer", {}, [](auto& r) { r.set_table("encoder.3"); }, true},
      {"mask", {}, [](auto& r) { r.set_mask(v1::MASK_NONE); }},
      {"scale", {}, [](auto& r) { r.set_scale(0.25F); }},
      {"offset", {}, [](auto& r) { r.set_query_offset(40); }},
      {"offset before the first key", {}, [](auto& r) { r.set_query_offset(-3); }},
      {"shared key heads", {.kv_heads = 1}, [](auto&) {}},
      {"log-sum-exp", {.batch = 2}, [](auto& r) { r.set_return_log_sum_exp(true); }},
      {"lengths",
       {.batch = 2},
       [](auto& r) {
         r.add_query_lengths(5);
         r.add_query_lengths(2);
         r.add_key_lengths(0);
         r.add_key_lengths(6);
         r.set_return_log_sum_exp(true);
       }},
      {"query offsets",
       {.batch = 2},
       [](auto& r) {
         r.add_query_offsets(-2);
         r.add_query_offsets(40);
       }},
      {"masks of keys",
       {.batch = 2, .queries = 100, .keys = 300},
       [](auto& r) {
         r.add_key_starts(3);
         r.add_key_starts(290);
         r.set_key_bits(std::string(2 * 38, '\x5b'));
         r.set_return_log_sum_exp(true);
       }},
      {"a window, a prefix and a bias of keys",
       {.batch = 2, .queries = 100, .keys = 300},
       [](auto& r) {
         r.set_window_left(70);
         r.set_window_right(40);
         r.add_prefix_lengths(290);
         r.add_prefix_lengths(0);
         for (std::int64_t i = 0; i < r.heads() * 300; ++i) r.add_key_bias(0.1F * static_cast<float>(i % 17));
         r.set_return_log_sum_exp(true);
       }},
      {"no bias", {.batch = 2}, WithoutBias},
      {"no bias, causal",
       {},
       [](auto& r) {
         WithoutBias(r);
         r.set_mask(v1::MASK_CAUSAL);
       }},
      {"no bias, any number of heads", {.heads = 6, .kv_heads = 3}, WithoutBias},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    TestCall call(c.sizes);
    c.change(call.header);
    const RequestTensors tensors = call.Tensors();
    Answer answer;
    Compute(call, tensors, answer);
    absl::StatusOr<AttentionResult>& result = answer.Wait();
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectIsTheFormula(call, TestTable(c.bidirectional), BytesOf(result->output), BytesOf(result->log_sum_exp));
  }
}

TEST_F(EngineTest, ComputesWithAnEmbeddedModel) {
  ASSERT_TRUE(registry_.AddEmbedded().ok());
  const std::shared_ptr<const model::Model> book = *registry_.Find("book");
  const bias::BiasTable& table = *book->FindTable("")->table;
  TestCall call({.heads = 1, .kv_heads = 1});
  call.header.set_model("book");
  call.header.set_first_head(table.heads() - 1);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  absl::StatusOr<AttentionResult>& result = answer.Wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->header.content_hash(), book->content_hash());
  ExpectIsTheFormula(call, table, BytesOf(result->output), "");
}

TEST_F(EngineTest, HeaderSaysWhatWasComputed) {
  TestCall call;
  call.header.set_output_dtype(v1::DTYPE_BF16);
  call.header.set_return_log_sum_exp(true);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  absl::StatusOr<AttentionResult>& result = answer.Wait();
  ASSERT_TRUE(result.ok()) << result.status();
  const model::Model& model = **registry_.Find(kModel);
  EXPECT_EQ(result->header.version(), model.version());
  EXPECT_EQ(result->header.content_hash(), model.content_hash());
  EXPECT_EQ(result->header.dtype(), v1::DTYPE_BF16);
  EXPECT_TRUE(result->header.has_queue_time());
  EXPECT_TRUE(result->header.has_compute_time());
  EXPECT_EQ(result->header.output(), "");
  EXPECT_EQ(result->header.log_sum_exp(), "");
  EXPECT_EQ(result->output.size(), 5 * 4 * kHeads * sizeof(std::uint16_t));
  EXPECT_EQ(result->log_sum_exp.size(), 5 * kHeads * sizeof(float));
}

TEST_F(EngineTest, WithoutBiasNoModelIsNeededOrNamed) {
  ASSERT_TRUE(registry_.Unload(kModel).ok());
  TestCall call;
  WithoutBias(call.header);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  absl::StatusOr<AttentionResult>& result = answer.Wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->header.version(), 0U);
  EXPECT_EQ(result->header.content_hash(), "");
  EXPECT_EQ(result->header.dtype(), v1::DTYPE_FP32);
}

TEST_F(EngineTest, NoLogSumExpUnlessAskedFor) {
  const TestCall call;
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  ASSERT_TRUE(answer.Wait().ok());
  EXPECT_EQ(answer.Wait()->log_sum_exp.size(), 0U);
}

TEST_F(EngineTest, RefusesBeforeItReturnsOnceAndForNothing) {
  const struct {
    std::function<void(TestCall&)> change;
    absl::StatusCode code;
    const char* message;
  } kCases[] = {
      {[](TestCall& c) { c.header.set_model("no-such"); }, absl::StatusCode::kNotFound, "model: "},
      {[](TestCall& c) { c.header.set_model(""); }, absl::StatusCode::kInvalidArgument, "model: "},
      {[](TestCall& c) { c.header.set_version(99); }, absl::StatusCode::kNotFound, "version: "},
      {[](TestCall& c) { c.header.set_table("no-such"); }, absl::StatusCode::kNotFound, "table: "},
      {[](TestCall& c) { c.header.set_heads(3); }, absl::StatusCode::kInvalidArgument, ""},
      {[](TestCall& c) { c.header.set_batch(0); }, absl::StatusCode::kInvalidArgument, "batch: "},
      {[](TestCall& c) { c.header.clear_dtype(); }, absl::StatusCode::kInvalidArgument, "dtype: "},
      {[](TestCall& c) { c.header.set_bias(v1::BIAS_NONE); }, absl::StatusCode::kInvalidArgument, "model: "},
      {[](TestCall& c) { c.header.set_bias(static_cast<v1::Bias>(9)); }, absl::StatusCode::kInvalidArgument, "bias: "},
      {[](TestCall& c) { c.header.set_key_bits("ab"); }, absl::StatusCode::kInvalidArgument, "key_bits: "},
      {[](TestCall& c) { c.q.pop_back(); }, absl::StatusCode::kInvalidArgument, "q: "},
      {[](TestCall& c) { c.k.clear(); }, absl::StatusCode::kInvalidArgument, "k: "},
      {[](TestCall& c) { c.v += "more"; }, absl::StatusCode::kInvalidArgument, "v: "},
      {[](TestCall& c) { c.header.mutable_q_shared(); }, absl::StatusCode::kFailedPrecondition, "q_shared: "},
      {[](TestCall& c) { c.header.mutable_output_shared(); }, absl::StatusCode::kFailedPrecondition, "output_shared: "},
      {[](TestCall& c) { c.header.mutable_log_sum_exp_shared(); }, absl::StatusCode::kFailedPrecondition,
       "log_sum_exp_shared: "},
  };
  for (const auto& c : kCases) {
    Start(Limits());
    TestCall call;
    c.change(call);
    const RequestTensors tensors = call.Tensors();
    Answer answer;
    Compute(call, tensors, answer);
    ASSERT_TRUE(answer.is_there()) << c.message;
    EXPECT_EQ(answer.WaitForCode(), c.code) << answer.Wait().status();
    EXPECT_THAT(std::string(answer.Wait().status().message()), StartsWith(c.message));
    EXPECT_EQ(engine_->TakePeakBytes(), 0) << "nothing was admitted";
    ExpectAnsweredOnce(answer);
  }
}

TEST_F(EngineTest, AdmitsUpToTheLimitOnBytesInFlight) {
  TestCall call(kLarge);
  call.header.set_return_log_sum_exp(true);
  call.header.set_key_bits(std::string(kLarge.keys / 8, '\xff'));
  call.header.mutable_key_bias()->Resize(static_cast<int>(call.header.heads() * kLarge.keys), 0.5F);
  const RequestTensors tensors = call.Tensors();
  Limits limits;
  limits.max_inflight_bytes = call.AdmittedBytes();
  Start(limits);
  Answer answer;
  Compute(call, tensors, answer);
  ASSERT_TRUE(answer.Wait().ok()) << answer.Wait().status();
  EXPECT_EQ(engine_->TakePeakBytes(), call.AdmittedBytes());

  // The first still holds its result, so that there is no room for another.
  Answer refused;
  Compute(call, tensors, refused);
  ASSERT_TRUE(refused.is_there());
  EXPECT_EQ(refused.WaitForCode(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.Wait().status().message()), StartsWith("request: "));
  answer.Wait() = absl::CancelledError();
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  Answer again;
  Compute(call, tensors, again);
  EXPECT_TRUE(again.Wait().ok());

  --limits.max_inflight_bytes;
  Start(limits);
  Answer too_large;
  Compute(call, tensors, too_large);
  EXPECT_EQ(too_large.WaitForCode(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->TakePeakBytes(), 0);
  ExpectAnsweredOnce(too_large);
}

TEST_F(EngineTest, ResultsOverTheLimitAreRefusedBeforeAnythingIsAdmitted) {
  Limits limits;
  limits.max_result_bytes = 5 * 4 * kHeads * 4;
  Start(limits);
  TestCall call;
  const RequestTensors tensors = call.Tensors();
  Answer fits;
  Compute(call, tensors, fits);
  EXPECT_TRUE(fits.Wait().ok());
  fits.Wait() = absl::CancelledError();
  ASSERT_EQ(AwaitNothingInflight(*engine_), 0);
  call.header.set_return_log_sum_exp(true);
  Answer refused;
  Compute(call, tensors, refused);
  EXPECT_EQ(refused.WaitForCode(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->TakePeakBytes(), 0);
}

TEST_F(EngineTest, TheLeaseGoesWithTheResult) {
  held_.Hold();
  const TestCall call(kLarge);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  ASSERT_TRUE(held_.AwaitHeld());
  EXPECT_EQ(InflightBytes(*engine_), call.AdmittedBytes()) << "from its admission on";
  EXPECT_FALSE(answer.is_there());
  held_.Release();
  ASSERT_TRUE(answer.Wait().ok()) << answer.Wait().status();
  AttentionResult result = *std::move(answer.Wait());
  const std::int64_t left = call.AdmittedBytes() - call.WorkBytes();
  EXPECT_EQ(InflightBytes(*engine_), left) << "what was packed is gone";
  EXPECT_EQ(result.lease.bytes(), left);
  EXPECT_EQ(result.request_bytes, RequestBytes(call));
  {
    const memory::Ticket lease = std::move(result.lease);
    EXPECT_EQ(InflightBytes(*engine_), left);
  }
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  ExpectAnsweredOnce(answer);
}

TEST_F(EngineTest, EachBufferHoldsItsPartOfTheLease) {
  TestCall call(kLarge);
  call.header.set_return_log_sum_exp(true);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  ASSERT_TRUE(answer.Wait().ok()) << answer.Wait().status();
  AttentionResult result = *std::move(answer.Wait());
  result.HoldInBuffers();
  EXPECT_EQ(result.lease.bytes(), 0);
  const auto log_sum_exp_bytes = static_cast<std::int64_t>(result.log_sum_exp.size());
  ASSERT_GT(log_sum_exp_bytes, 0);
  const std::int64_t all = InflightBytes(*engine_);
  EXPECT_EQ(all, call.AdmittedBytes() - call.WorkBytes());
  result.log_sum_exp = Buffer();
  EXPECT_EQ(InflightBytes(*engine_), all - log_sum_exp_bytes);
  result.output = Buffer();
  EXPECT_EQ(InflightBytes(*engine_), 0);
  ExpectAnsweredOnce(answer);
}

TEST_F(EngineTest, APeersResultsLeaveRoomForAnother) {
  for (const bool shares : {true, false}) {
    const TestCall call(kLarge);
    const RequestTensors tensors = call.Tensors();
    memory::Ledger ledger({.total = 6 * call.AdmittedBytes(), .shares = shares});
    engine_ = std::make_unique<AttentionEngine>(Limits(), registry_, held_.kernel(), 1, nullptr, &ledger);
    ComputeOptions hog;
    hog.account = ledger.AccountOf("hog");
    // Takes until it is refused, and keeps all results.
    std::vector<std::unique_ptr<Answer>> kept;
    do {
      kept.push_back(std::make_unique<Answer>());
      engine_->Compute(call.header, tensors, hog, kept.back()->done());
    } while (kept.back()->Wait().ok());
    EXPECT_EQ(kept.back()->WaitForCode(), absl::StatusCode::kResourceExhausted);
    Answer answer;
    ComputeOptions other;
    other.account = ledger.AccountOf("other");
    engine_->Compute(call.header, tensors, other, answer.done());
    EXPECT_EQ(answer.WaitForCode(), shares ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
    kept.clear();
    answer.Wait() = absl::CancelledError();
    EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
    engine_.reset();
  }
}

TEST_F(EngineTest, ResultsMayOutliveTheEngine) {
  const TestCall call(kLarge);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  ASSERT_TRUE(answer.Wait().ok());
  ExpectAnsweredOnce(answer);
  ExpectIsTheFormula(call, TestTable(false), BytesOf(answer.Wait()->output), "");
}

TEST_F(EngineTest, CancelledBeforeItBegins) {
  for (const CallSizes& sizes : {CallSizes(), kLarge}) {
    Start(Limits());
    const TestCall call(sizes);
    const RequestTensors tensors = call.Tensors();
    schedule::SubmitOptions options;
    options.cancel.Cancel();
    const std::int64_t steps = held_.steps();
    Answer answer;
    Compute(call, tensors, answer, options);
    EXPECT_EQ(answer.WaitForCode(), absl::StatusCode::kCancelled);
    EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
    EXPECT_EQ(held_.steps(), steps) << "nothing is computed";
    ExpectAnsweredOnce(answer);
  }
}

TEST_F(EngineTest, CancelledWhileItWaitsForAnother) {
  held_.Hold();
  const TestCall first(kLarge);
  const RequestTensors first_tensors = first.Tensors();
  Answer first_answer;
  Compute(first, first_tensors, first_answer);
  ASSERT_TRUE(held_.AwaitHeld());
  const TestCall second(kLarge, 2);
  const RequestTensors second_tensors = second.Tensors();
  schedule::SubmitOptions options;
  Answer second_answer;
  Compute(second, second_tensors, second_answer, options);
  EXPECT_EQ(InflightBytes(*engine_), first.AdmittedBytes() + second.AdmittedBytes());
  options.cancel.Cancel();
  held_.Release();
  EXPECT_EQ(second_answer.WaitForCode(), absl::StatusCode::kCancelled);
  ASSERT_TRUE(first_answer.Wait().ok());
  ExpectIsTheFormula(first, TestTable(false), BytesOf(first_answer.Wait()->output), "");
  first_answer.Wait() = absl::UnknownError("dropped");
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  ExpectAnsweredOnce(second_answer);
  EXPECT_EQ(first_answer.calls(), 1);
}

// A thread that is not to be held up leaves it to the scheduler to prepare a call of many sequences that differ.
constexpr CallSizes kManySequences = {.batch = 9000, .queries = 1, .keys = 1, .head_dim = 1, .value_head_dim = 1};

void AddLengths(TestCall& call) {
  for (std::int64_t i = 0; i < kManySequences.batch; ++i) call.header.add_key_lengths(i % 2);
}

TEST_F(EngineTest, ManySequencesArePreparedOnTheScheduler) {
  held_.Hold();
  const TestCall first(kLarge);
  const RequestTensors first_tensors = first.Tensors();
  Answer first_answer;
  engine_->ComputeAside(first.header, first_tensors, {}, first_answer.done());
  ASSERT_TRUE(held_.AwaitHeld());
  TestCall many(kManySequences);
  AddLengths(many);
  const TestCall small;
  const RequestTensors many_tensors = many.Tensors(), small_tensors = small.Tensors();
  Answer many_answer, small_answer;
  engine_->ComputeAside(many.header, many_tensors, {}, many_answer.done());
  EXPECT_EQ(InflightBytes(*engine_), first.AdmittedBytes() + RequestBytes(many)) << "it was prepared on this thread";
  engine_->ComputeAside(small.header, small_tensors, {}, small_answer.done());
  EXPECT_TRUE(small_answer.is_there()) << "a small one waits for nobody";
  held_.Release();
  ASSERT_TRUE(many_answer.Wait().ok()) << many_answer.Wait().status();
  ExpectIsTheFormula(many, TestTable(false), BytesOf(many_answer.Wait()->output), "");
  EXPECT_EQ(first_answer.WaitForCode(), absl::StatusCode::kOk);
  ExpectAnsweredOnce(many_answer);
  EXPECT_EQ(first_answer.calls(), 1);
  EXPECT_EQ(small_answer.calls(), 1);
}

TEST_F(EngineTest, WhatIsPreparedOnTheSchedulerMayBeRefusedOrCancelledThere) {
  const struct {
    std::function<void(TestCall&, schedule::SubmitOptions&)> change;
    absl::StatusCode code;
  } kCases[] = {
      {[](TestCall& c, schedule::SubmitOptions&) { c.header.set_model("no-such"); }, absl::StatusCode::kNotFound},
      {[](TestCall& c, schedule::SubmitOptions&) { c.q.pop_back(); }, absl::StatusCode::kInvalidArgument},
      {[](TestCall& c, schedule::SubmitOptions&) { c.header.set_batch(std::int64_t{1} << 62); },
       absl::StatusCode::kInvalidArgument},
      {[](TestCall&, schedule::SubmitOptions& o) { o.deadline = schedule::Clock::now(); },
       absl::StatusCode::kDeadlineExceeded},
      {[](TestCall&, schedule::SubmitOptions& o) { o.cancel.Cancel(); }, absl::StatusCode::kCancelled},
  };
  for (const auto& c : kCases) {
    Start(Limits());
    TestCall call(kManySequences);
    AddLengths(call);
    schedule::SubmitOptions options;
    c.change(call, options);
    const RequestTensors tensors = call.Tensors();
    Answer answer;
    engine_->ComputeAside(call.header, tensors, options, answer.done());
    EXPECT_EQ(answer.WaitForCode(), c.code) << answer.Wait().status();
    EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
    EXPECT_LE(engine_->TakePeakBytes(), RequestBytes(call)) << "nothing was admitted but its message";
    ExpectAnsweredOnce(answer);
  }
}

TEST_F(EngineTest, CancelledAtAnyTimeOfItsPreparationItIsAnsweredOnce) {
  for (int i = 0; i < 200; ++i) {
    Start(Limits());
    TestCall call(kManySequences);
    AddLengths(call);
    const RequestTensors tensors = call.Tensors();
    schedule::SubmitOptions options;
    Answer answer;
    std::thread canceller([&] {
      absl::SleepFor(absl::Microseconds(5 * i));
      options.cancel.Cancel();
    });
    engine_->ComputeAside(call.header, tensors, options, answer.done());
    EXPECT_THAT(answer.WaitForCode(), testing::AnyOf(absl::StatusCode::kOk, absl::StatusCode::kCancelled));
    canceller.join();
    answer.Wait() = absl::UnknownError("dropped");
    EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
    ExpectAnsweredOnce(answer);
  }
}

TEST_F(EngineTest, CancelledWhileItIsComputed) {
  held_.Hold();
  const TestCall call(kEndless);
  const RequestTensors tensors = call.Tensors();
  schedule::SubmitOptions options;
  Answer answer;
  Compute(call, tensors, answer, options);
  ASSERT_TRUE(held_.AwaitHeld());
  EXPECT_GT(InflightBytes(*engine_), 0);
  options.cancel.Cancel();
  held_.ReleaseSlowly();  // the rest would take longer than Wait does
  EXPECT_EQ(answer.WaitForCode(), absl::StatusCode::kCancelled);
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  ExpectAnsweredOnce(answer);
}

TEST_F(EngineTest, DeadlinePassedBeforeItBegins) {
  for (const CallSizes& sizes : {CallSizes(), kLarge}) {
    Start(Limits());
    const TestCall call(sizes);
    const RequestTensors tensors = call.Tensors();
    schedule::SubmitOptions options;
    options.deadline = schedule::Clock::now() - std::chrono::seconds(1);
    Answer answer;
    Compute(call, tensors, answer, options);
    EXPECT_EQ(answer.WaitForCode(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
    ExpectAnsweredOnce(answer);
  }
}

TEST_F(EngineTest, DeadlinePassesWhileItIsComputed) {
  held_.Hold();
  const TestCall call(kEndless);
  const RequestTensors tensors = call.Tensors();
  schedule::SubmitOptions options;
  options.deadline = schedule::Clock::now() + std::chrono::seconds(2);  // by then it is being computed
  Answer answer;
  Compute(call, tensors, answer, options);
  ASSERT_TRUE(held_.AwaitHeld());
  while (schedule::Clock::now() <= options.deadline) std::this_thread::yield();
  held_.ReleaseSlowly();
  EXPECT_EQ(answer.WaitForCode(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  ExpectAnsweredOnce(answer);
}

TEST_F(EngineTest, ACallKeepsTheVersionThatItBeganWith) {
  held_.Hold();
  const std::shared_ptr<const model::Model> before = *registry_.Find(kModel);
  const TestCall call(kLarge);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  ASSERT_TRUE(held_.AwaitHeld());
  ASSERT_TRUE(registry_.Upload(kModel, "decoder", TestTable(false, 5), /*replace=*/true).ok());
  ASSERT_TRUE(registry_.Unload(kModel).ok());
  held_.Release();
  absl::StatusOr<AttentionResult>& result = answer.Wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->header.version(), before->version());
  EXPECT_EQ(result->header.content_hash(), before->content_hash());
  ExpectIsTheFormula(call, TestTable(false), BytesOf(result->output), "");
  Answer after;
  Compute(call, tensors, after);
  EXPECT_EQ(after.WaitForCode(), absl::StatusCode::kNotFound);
}

TEST_F(EngineTest, DestructionWaitsForWhatWasAsked) {
  held_.Hold();
  const TestCall call(kLarge);
  const RequestTensors tensors = call.Tensors();
  Answer answers[3];
  for (Answer& answer : answers) Compute(call, tensors, answer);
  ASSERT_TRUE(held_.AwaitHeld());
  std::thread destroyer([this] { engine_.reset(); });
  held_.Release();
  destroyer.join();
  for (Answer& answer : answers) {
    EXPECT_EQ(answer.calls(), 1);
    ASSERT_TRUE(answer.Wait().ok());
    ExpectIsTheFormula(call, TestTable(false), BytesOf(answer.Wait()->output), "");
  }
}

TEST_F(EngineTest, PeakIsThatOfAllCallsTogetherSinceItWasTaken) {
  held_.Hold();
  const TestCall call(kLarge);
  const RequestTensors tensors = call.Tensors();
  Answer first;
  Answer second;
  Compute(call, tensors, first);
  Compute(call, tensors, second);
  held_.Release();
  ASSERT_TRUE(first.Wait().ok() && second.Wait().ok());
  first.Wait() = absl::UnknownError("dropped");
  EXPECT_EQ(engine_->TakePeakBytes(), 2 * call.AdmittedBytes());
  second.Wait() = absl::UnknownError("dropped");
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
}

TEST_F(EngineTest, ManyAtOnceAreEachAnsweredOnce) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 25;
  std::vector<std::unique_ptr<Answer>> answers;
  for (int i = 0; i < kThreads * kCalls; ++i) answers.push_back(std::make_unique<Answer>());
  const TestCall small;
  const TestCall large({.queries = 100, .keys = 100, .head_dim = 32, .value_head_dim = 32});
  const RequestTensors small_tensors = small.Tensors();
  const RequestTensors large_tensors = large.Tensors();
  TestCall bad;
  bad.header.set_batch(2);
  Answer small_alone;
  Compute(small, small_tensors, small_alone);
  ASSERT_TRUE(small_alone.Wait().ok());
  ExpectIsTheFormula(small, TestTable(false), BytesOf(small_alone.Wait()->output), "");
  Answer alone;
  Compute(large, large_tensors, alone);
  ASSERT_TRUE(alone.Wait().ok());
  ExpectIsTheFormula(large, TestTable(false), BytesOf(alone.Wait()->output), "");
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        Answer& answer = *answers[static_cast<std::size_t>(t * kCalls + i)];
        if (i % 3 == 0) Compute(small, small_tensors, answer);
        if (i % 3 == 1) Compute(large, large_tensors, answer);
        if (i % 3 == 2) Compute(bad, small_tensors, answer);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (std::size_t i = 0; i < answers.size(); ++i) {
    absl::StatusOr<AttentionResult>& result = answers[i]->Wait();
    const std::size_t kind = i % kCalls % 3;
    if (kind == 2) {
      EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    } else {
      ASSERT_TRUE(result.ok()) << result.status();
      const bool same =
          BytesOf(result->output) == BytesOf(kind == 0 ? small_alone.Wait()->output : alone.Wait()->output);
      EXPECT_TRUE(same) << "call " << i;
    }
    result = absl::UnknownError("dropped");
  }
  small_alone.Wait() = absl::UnknownError("dropped");
  alone.Wait() = absl::UnknownError("dropped");
  EXPECT_EQ(AwaitNothingInflight(*engine_), 0);
  engine_.reset();
  for (const auto& answer : answers) EXPECT_EQ(answer->calls(), 1);
}

TEST_F(EngineTest, ResultsInSharedMemoryAreWrittenThereAndNotCounted) {
  constexpr std::size_t kSize = 1 << 16;
  SharedMemory memory(SharedMemoryLimits{});
  const shm::UniqueFd fd(memfd_create("engine_test", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(fd.get(), kSize), 0);
  ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const absl::StatusOr<shm::Handle> handle = memory.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(handle.ok()) << handle.status();
  Start(Limits(), &memory);
  TestCall call;
  call.header.mutable_output_shared()->set_region(handle->data(), handle->size());
  call.header.mutable_output_shared()->set_offset(128);
  call.header.set_return_log_sum_exp(true);
  *call.header.mutable_log_sum_exp_shared() = call.header.output_shared();
  call.header.mutable_log_sum_exp_shared()->set_offset(4096);
  const RequestTensors tensors = call.Tensors();
  Answer answer;
  Compute(call, tensors, answer);
  absl::StatusOr<AttentionResult>& result = answer.Wait();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output.size() + result->log_sum_exp.size(), 0U);
  constexpr std::size_t kRows = 5 * kHeads * sizeof(float);
  constexpr std::size_t kOutput = 4 * kRows;
  EXPECT_EQ(engine_->TakePeakBytes(), call.AdmittedBytes() - static_cast<std::int64_t>(kOutput + kRows));
  const absl::StatusOr<SharedBytes> output = memory.Resolve("output", call.header.output_shared(), kOutput);
  const absl::StatusOr<SharedBytes> log_sum_exp = memory.Resolve("", call.header.log_sum_exp_shared(), kRows);
  ASSERT_TRUE(output.ok() && log_sum_exp.ok());
  ExpectIsTheFormula(call, TestTable(false), {reinterpret_cast<const char*>(output->data), kOutput},
                     {reinterpret_cast<const char*>(log_sum_exp->data), kRows});
}

TEST_F(EngineTest, SaysWhatItWasGiven) {
  Limits limits;
  limits.max_dim = 77;
  AttentionEngine engine(limits, registry_, held_.kernel(), 3);
  EXPECT_EQ(engine.threads(), 3);
  EXPECT_EQ(engine.limits().max_dim, 77);
}

}  // namespace
}  // namespace attnd::server
