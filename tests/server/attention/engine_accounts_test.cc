// What a request holds: exactly what it takes while it is computed, and nothing of it when its end is told, whatever
// the end is.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attention/calls.h"
#include "attention/held_kernel.h"
#include "attention/test_region.h"
#include "gtest/gtest.h"
#include "server/attention/engine.h"
#include "server/attention/row_places.h"

namespace attnd::server {
namespace {

// How a request ended, and what the engine held at that moment.
struct End {
  absl::StatusOr<AttentionResult> result = absl::UnknownError("not ended");
  std::int64_t held_bytes = -1;
  absl::Notification told;

  AttentionEngine::Done Done(AttentionEngine& engine) {
    return [this, &engine](absl::StatusOr<AttentionResult> ended) {
      held_bytes = engine.inflight_bytes();
      result = std::move(ended);
      told.Notify();
    };
  }
  bool Comes() const { return told.WaitForNotificationWithTimeout(kPatience); }
};

class EngineAccountsTest : public testing::Test {
 protected:
  EngineAccountsTest() {
    AddTestModel(registry_);
    Start(Limits());
  }
  ~EngineAccountsTest() override { held_.Release(); }

  void Start(const Limits& limits) {
    engine_ = std::make_unique<AttentionEngine>(limits, registry_, held_.kernel(), 1, &region_.memory);
  }

  TestRegion region_;
  HeldKernel held_;
  model::Registry registry_{model::RegistryOptions{}};
  std::unique_ptr<AttentionEngine> engine_;
};

constexpr CallSizes kMany = {.batch = 2000, .queries = 1, .keys = 1, .head_dim = 1, .value_head_dim = 1};

// Shapes of requests: computed where they are asked for, on the scheduler, and prepared there too.
struct Kind {
  const char* name;
  CallSizes sizes;
  bool has_lists;
};
constexpr Kind kKinds[] = {{"small", {}, false}, {"large", kLarge, false}, {"many sequences", kMany, true}};

// By each way into the engine and each way out, for each kind.
TEST_F(EngineAccountsTest, NothingIsHeldWhenAFailureIsTold) {
  const struct {
    const char* name;
    std::function<void(TestCall&, ComputeOptions&)> spoil;
    absl::StatusCode code;
    std::int64_t max_sent = AttentionEngine::kAnyBytes;
  } kWays[] = {
      {"unknown model", [](TestCall& c, ComputeOptions&) { c.header.set_model("no-such"); },
       absl::StatusCode::kNotFound},
      {"validation", [](TestCall& c, ComputeOptions&) { c.q.pop_back(); }, absl::StatusCode::kInvalidArgument},
      {"result without room", [](TestCall&, ComputeOptions&) {}, absl::StatusCode::kResourceExhausted, 3},
      {"late", [](TestCall&, ComputeOptions& o) { o.deadline = schedule::Clock::now(); },
       absl::StatusCode::kDeadlineExceeded},
      {"cancelled", [](TestCall&, ComputeOptions& o) { o.cancel.Cancel(); }, absl::StatusCode::kCancelled},
  };
  for (const Kind& kind : kKinds) {
    for (const auto& way : kWays) {
      for (const bool aside : {false, true}) {
        SCOPED_TRACE(testing::Message() << kind.name << ", " << way.name << (aside ? ", aside" : ""));
        Start(Limits());
        TestCall call(kind.sizes);
        for (std::int64_t i = 0; kind.has_lists && i < kind.sizes.batch; ++i) call.header.add_kv_rows(i);
        ComputeOptions options;
        way.spoil(call, options);
        const RequestTensors tensors = call.Tensors();
        End end;
        if (aside) {
          engine_->ComputeAside(call.header, tensors, options, end.Done(*engine_), way.max_sent);
        } else {
          engine_->Compute(call.header, tensors, options, end.Done(*engine_), way.max_sent);
        }
        ASSERT_TRUE(end.Comes());
        EXPECT_EQ(end.result.status().code(), way.code) << end.result.status();
        EXPECT_EQ(end.held_bytes, 0);
        EXPECT_EQ(engine_->inflight_bytes(), 0);
      }
    }
  }
}

// The call that does not fit: refused for itself, and beside another.
TEST_F(EngineAccountsTest, NothingMoreIsHeldWhenARefusalIsTold) {
  const TestCall call(kLarge);
  const RequestTensors tensors = call.Tensors();
  for (const bool aside : {false, true}) {
    Limits limits;
    limits.max_inflight_bytes = 2 * call.AdmittedBytes() - 1;
    Start(limits);
    held_.Hold();
    End first, refused;
    engine_->Compute(call.header, tensors, {}, first.Done(*engine_));
    ASSERT_TRUE(held_.AwaitHeld());
    if (aside) {
      engine_->ComputeAside(call.header, tensors, {}, refused.Done(*engine_));
    } else {
      engine_->Compute(call.header, tensors, {}, refused.Done(*engine_));
    }
    ASSERT_TRUE(refused.Comes());
    EXPECT_EQ(refused.result.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(refused.held_bytes, call.AdmittedBytes()) << "the first one's";
    held_.Release();
    ASSERT_TRUE(first.Comes());
    EXPECT_EQ(first.held_bytes, call.AdmittedBytes() - call.WorkBytes()) << "its result";
  }
}

// While it is queued and while it is computed.
TEST_F(EngineAccountsTest, NothingMoreIsHeldWhenAQueuedOrRunningCallEnds) {
  for (int round = 0; round < 2; ++round) {
    Start(Limits());
    held_.Hold();
    const TestCall call(kLarge);
    const RequestTensors tensors = call.Tensors();
    ComputeOptions first_options, second_options;
    End first, second;
    engine_->Compute(call.header, tensors, first_options, first.Done(*engine_));
    ASSERT_TRUE(held_.AwaitHeld());
    engine_->Compute(call.header, tensors, second_options, second.Done(*engine_));
    EXPECT_EQ(engine_->inflight_bytes(), 2 * call.AdmittedBytes());
    second_options.cancel.Cancel();
    ASSERT_TRUE(second.Comes());
    EXPECT_EQ(second.held_bytes, call.AdmittedBytes());
    first_options.cancel.Cancel();
    held_.Release();
    ASSERT_TRUE(first.Comes());
    EXPECT_EQ(first.held_bytes, 0);
    EXPECT_EQ(first.result.status().code(), absl::StatusCode::kCancelled);
  }
}

// Each part of a request counts, to the byte: what is left of one part less is not enough.
TEST_F(EngineAccountsTest, EachPartIsReserved) {
  const struct {
    const char* name;
    std::function<void(TestCall&)> change;
  } kParts[] = {
      {"nothing more", [](TestCall&) {}},
      {"log-sum-exp", [](TestCall& c) { c.header.set_return_log_sum_exp(true); }},
      {"key bits", [](TestCall& c) { c.header.set_key_bits(std::string(4 * kLarge.keys / 8, '\xff')); }},
      {"key bias",
       [](TestCall& c) {
         c.header.mutable_key_bias()->Resize(static_cast<int>(c.header.heads() * c.header.key_length()), 1);
       }},
      {"rows of keys",
       [](TestCall& c) {
         for (int i = 0; i < 4; ++i) c.header.add_kv_rows(i);
       }},
      {"segments",
       [](TestCall& c) {
         for (int i = 0; i < 4; ++i) {
           c.header.add_query_segments(i * kLarge.queries);
           c.header.add_query_segments(i * kLarge.queries + 9);
         }
       }},
  };
  CallSizes sizes = kLarge;
  sizes.batch = 4;
  for (const auto& part : kParts) {
    for (const bool aside : {false, true}) {
      SCOPED_TRACE(testing::Message() << part.name << (aside ? ", aside" : ""));
      TestCall call(sizes);
      part.change(call);
      const std::int64_t all = call.AdmittedBytes() + PlacesBytes(call.header);
      const RequestTensors tensors = call.Tensors();
      for (const std::int64_t room : {all, all - 1}) {
        Limits limits;
        limits.max_inflight_bytes = room;
        Start(limits);
        End end;
        if (aside) {
          engine_->ComputeAside(call.header, tensors, {}, end.Done(*engine_));
        } else {
          engine_->Compute(call.header, tensors, {}, end.Done(*engine_));
        }
        ASSERT_TRUE(end.Comes());
        EXPECT_EQ(end.result.ok(), room == all) << end.result.status();
        if (room < all) continue;
        EXPECT_EQ(engine_->TakePeakBytes(), all);
        EXPECT_EQ(end.held_bytes, all - call.WorkBytes() - PlacesBytes(call.header)) << "its result and its message";
        end.result = absl::CancelledError();
        EXPECT_EQ(engine_->inflight_bytes(), 0);
      }
    }
  }
}

// Results in shared memory count nothing; what is sent beside them holds the request's part.
TEST_F(EngineAccountsTest, BuffersHoldTheLeaseWhicheverOfThemIsSent) {
  for (const bool output_is_shared : {false, true}) {
    for (const int sums : {0, 1, 2}) {  // none, sent, shared
      SCOPED_TRACE(testing::Message() << output_is_shared << ", " << sums);
      Start(Limits());
      TestCall call(kLarge);
      call.header.set_return_log_sum_exp(sums != 0);
      if (output_is_shared) *call.header.mutable_output_shared() = region_.At(0);
      if (sums == 2) *call.header.mutable_log_sum_exp_shared() = region_.At(1 << 19);
      const RequestTensors tensors = call.Tensors();
      End end;
      engine_->Compute(call.header, tensors, {}, end.Done(*engine_));
      ASSERT_TRUE(end.Comes());
      ASSERT_TRUE(end.result.ok()) << end.result.status();
      AttentionResult result = *std::move(end.result);
      const std::int64_t message = static_cast<std::int64_t>(call.q.size() + call.k.size() + call.v.size());
      const auto output = static_cast<std::int64_t>(result.output.size());
      const auto log_sum_exp = static_cast<std::int64_t>(result.log_sum_exp.size());
      EXPECT_EQ(output == 0, output_is_shared);
      EXPECT_EQ(log_sum_exp == 0, sums != 1);
      EXPECT_EQ(engine_->inflight_bytes(), message + output + log_sum_exp);
      result.HoldInBuffers();
      const bool nothing_is_sent = output == 0 && log_sum_exp == 0;
      EXPECT_EQ(result.lease.bytes(), nothing_is_sent ? message : 0);
      {
        const memory::Ticket lease = std::move(result.lease);
        EXPECT_EQ(engine_->inflight_bytes(), message + output + log_sum_exp);
      }
      EXPECT_EQ(engine_->inflight_bytes(), nothing_is_sent ? 0 : message + output + log_sum_exp);
      result.log_sum_exp = Buffer();
      EXPECT_EQ(engine_->inflight_bytes(), output == 0 ? 0 : message + output);
      result.output = Buffer();
      EXPECT_EQ(engine_->inflight_bytes(), 0);
    }
  }
}

// From its arrival, whoever prepares it.
TEST_F(EngineAccountsTest, TheQueueTimeBeginsWithTheArrival) {
  held_.Hold();
  const TestCall first(kLarge);
  const RequestTensors first_tensors = first.Tensors();
  End first_end;
  engine_->Compute(first.header, first_tensors, {}, first_end.Done(*engine_));
  ASSERT_TRUE(held_.AwaitHeld());
  TestCall many(kMany);
  for (std::int64_t i = 0; i < kMany.batch; ++i) many.header.add_kv_rows(i);
  const RequestTensors many_tensors = many.Tensors();
  End many_end;
  engine_->ComputeAside(many.header, many_tensors, {}, many_end.Done(*engine_));
  const absl::Time asked = absl::Now();
  while (absl::Now() < asked + absl::Milliseconds(50)) absl::SleepFor(absl::Milliseconds(5));
  held_.Release();
  ASSERT_TRUE(many_end.Comes());
  ASSERT_TRUE(many_end.result.ok()) << many_end.result.status();
  const google::protobuf::Duration& queued = many_end.result->header.queue_time();
  EXPECT_GE(queued.seconds() * 1'000'000'000 + queued.nanos(), 40'000'000);
  ASSERT_TRUE(first_end.Comes());
}

}  // namespace
}  // namespace attnd::server
