// What each field of a session's step may be: its limits and one beyond.
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "contract/request.h"
#include "gtest/gtest.h"
#include "session/test_steps.h"

namespace attnd::server {
namespace {

using absl::StatusCode;

// A field of a step, its lowest and its highest value.
struct Range {
  const char* field;
  std::int64_t lowest, highest;
  void (*set)(v1::SessionRequest& request, std::int64_t value);
  StatusCode beyond = StatusCode::kInvalidArgument;
};

void AddEach(google::protobuf::RepeatedField<std::int64_t>* list, std::int64_t value, std::int64_t count = kRows) {
  for (std::int64_t i = 0; i < count; ++i) list->Add(i == 1 ? value : 0);
}

constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();

const Range kRanges[] = {
    {"layer", 0, 2, [](v1::SessionRequest& r, std::int64_t value) { r.mutable_step()->set_layer(value); }},
    {"reorder[1]", 0, kRows - 1,
     [](v1::SessionRequest& r, std::int64_t value) { AddEach(r.mutable_step()->mutable_reorder(), value); }},
    {"truncate[1]", 0, kAny,
     [](v1::SessionRequest& r, std::int64_t value) { AddEach(r.mutable_step()->mutable_truncate(), value); }},
    {"key_starts[1]", 0, contract::kMaxPosition,
     [](v1::SessionRequest& r, std::int64_t value) { AddEach(r.mutable_step()->mutable_key_starts(), value); }},
    {"key_bits_length", 1, kMostTokens,
     [](v1::SessionRequest& r, std::int64_t value) {
       r.mutable_step()->set_key_bits_length(value);
       r.mutable_step()->set_key_bits(std::string(static_cast<std::size_t>((value + 7) / 8 * kSources), 'x'));
       if (value <= 0) r.mutable_step()->set_key_bits("x");
     }},
    {"key_lengths[1]", 0, 3,
     [](v1::SessionRequest& r, std::int64_t value) {
       r.mutable_step()->set_key_length(3);
       AddEach(r.mutable_step()->mutable_key_lengths(), value);
       r.set_k(Ones(kRows * 2 * 3 * 8));
       r.set_v(Ones(kRows * 2 * 3 * 8));
     }},
    {"query_lengths[1]", 0, 2,
     [](v1::SessionRequest& r, std::int64_t value) {
       r.mutable_step()->set_query_length(2);
       AddEach(r.mutable_step()->mutable_query_lengths(), value);
       r.set_q(Ones(kRows * 2 * 2 * 8));
     }},
    {"key_length", 0, kMostTokens - 10,
     [](v1::SessionRequest& r, std::int64_t value) {
       r.mutable_step()->set_key_length(value);
       r.set_k(Ones(kRows * 2 * value * 8));
       r.set_v(Ones(kRows * 2 * value * 8));
     },
     StatusCode::kOutOfRange},
    {"expected_lengths", 10, 10,
     [](v1::SessionRequest& r, std::int64_t value) { r.mutable_step()->add_expected_lengths(value); },
     StatusCode::kFailedPrecondition},
    {"expected_lengths[1]", 10, 10,
     [](v1::SessionRequest& r, std::int64_t value) {
       for (int row = 0; row < kRows; ++row) r.mutable_step()->add_expected_lengths(row == 1 ? value : 10);
     },
     StatusCode::kFailedPrecondition},
    {"step", 3, 5 - 1,
     [](v1::SessionRequest& r, std::int64_t value) {
       r.mutable_step()->set_step(static_cast<std::uint64_t>(value + 1));
     },
     StatusCode::kFailedPrecondition},
};

TEST(SessionLimitsTest, TakesEachNumberUpToItsLimitAndNotOneBeyond) {
  for (const Range& range : kRanges) {
    std::vector<std::int64_t> values = {range.lowest - 1, range.lowest, range.highest};
    if (range.highest < kAny) values.push_back(range.highest + 1);
    for (const std::int64_t value : values) {
      TestSteps session;
      Fill(session);
      v1::SessionRequest request = session.Step(0, 0);
      range.set(request, value);
      const bool within = value >= range.lowest && value <= range.highest;
      const std::string before = session.State();
      const absl::Status taken = session.Take(request);
      const bool low_length = std::string(range.field) == "key_length" && value < 0;
      EXPECT_EQ(taken.code(), within       ? StatusCode::kOk
                              : low_length ? StatusCode::kInvalidArgument
                                           : range.beyond)
          << range.field << " = " << value << ": " << taken;
      if (within) continue;
      EXPECT_EQ(FieldOf(taken), range.field) << value;
      EXPECT_EQ(session.State(), before) << range.field << " = " << value;
    }
  }
}

TEST(SessionLimitsTest, TheFirstStepIsNumberOne) {
  for (const std::uint64_t number : {0u, 1u, 2u}) {
    TestSteps session;
    const absl::Status taken = session.Take(PlainStep(MixedOpen(), number, 1, 0));
    EXPECT_EQ(taken.code(), number == 1 ? StatusCode::kOk : StatusCode::kFailedPrecondition) << number;
    EXPECT_EQ(session->last_step(), number == 1 ? 1U : 0U);
  }
}

TEST(SessionLimitsTest, LengthsAreUpToTheLimitOfTheServer) {
  Limits limits;
  limits.max_dim = 100;
  for (const std::int64_t length : {100, 101}) {
    for (const bool keys : {false, true}) {
      TestSteps session(MixedOpen(), limits);
      const absl::Status taken = session.Take(session.Step(keys ? length : 0, keys ? 0 : length));
      EXPECT_EQ(taken.code(), length == 100 ? StatusCode::kOk : StatusCode::kInvalidArgument) << taken;
      if (!taken.ok()) {
        EXPECT_EQ(FieldOf(taken), keys ? "key_length" : "query_length");
      }
    }
  }
}

// Rows, or sources in a cross layer; none, one for each, and in one list one for all.
TEST(SessionLimitsTest, ListsHaveAsManyNumbersAsThereAreRows) {
  using List = google::protobuf::RepeatedField<std::int64_t>* (*)(v1::SessionStep & step);
  struct Case {
    const char* field;
    List list;
    bool of_sources;
  };
  const Case cases[] = {
      {"reorder", [](v1::SessionStep& s) { return s.mutable_reorder(); }, false},
      {"truncate", [](v1::SessionStep& s) { return s.mutable_truncate(); }, false},
      {"key_starts", [](v1::SessionStep& s) { return s.mutable_key_starts(); }, false},
      {"query_lengths", [](v1::SessionStep& s) { return s.mutable_query_lengths(); }, false},
      {"key_lengths", [](v1::SessionStep& s) { return s.mutable_key_lengths(); }, true},
      {"expected_lengths", [](v1::SessionStep& s) { return s.mutable_expected_lengths(); }, true},
  };
  for (const Case& c : cases) {
    for (const int layer : {0, 1}) {
      const std::int64_t right = c.of_sources && layer == 1 ? kSources : kRows;
      for (const std::int64_t size : {right - 1, right, right + 1}) {
        TestSteps session;
        v1::SessionRequest request = session.Step(0, 0, layer);
        for (std::int64_t i = 0; i < size; ++i) c.list(*request.mutable_step())->Add(0);
        const absl::Status taken = session.Take(request);
        const bool one_for_all = size == 1 && std::string(c.field) == "expected_lengths";
        EXPECT_EQ(taken.code(), size == right || one_for_all ? StatusCode::kOk : StatusCode::kInvalidArgument)
            << c.field << " of " << size << " in layer " << layer << ": " << taken;
        if (!taken.ok()) {
          EXPECT_EQ(FieldOf(taken), c.field);
        }
      }
    }
  }
}

// Each of them: by one byte too many or too few.
TEST(SessionLimitsTest, TensorsHaveTheSizesThatTheStepSays) {
  for (const int layer : {0, 1, 2}) {
    for (std::string* (*const tensor)(v1::SessionRequest & request) :
         {+[](v1::SessionRequest& r) { return r.mutable_q(); }, +[](v1::SessionRequest& r) { return r.mutable_k(); },
          +[](v1::SessionRequest& r) { return r.mutable_v(); },
          +[](v1::SessionRequest& r) { return r.mutable_step()->mutable_key_bits(); }}) {
      for (const int change : {-1, 0, 1}) {
        for (const std::int64_t length : {0, 3}) {
          TestSteps session;
          Fill(session);
          v1::SessionRequest request = session.Step(length, length, layer);
          request.mutable_step()->set_key_bits("0123");
          request.mutable_step()->set_key_bits_length(16);
          std::string& bytes = *tensor(request);
          if (change < 0 && bytes.empty()) continue;
          bytes.resize(bytes.size() + static_cast<std::size_t>(change));
          const std::string before = session.State();
          const absl::Status taken = session.Take(request);
          EXPECT_EQ(taken.code(), change == 0 ? StatusCode::kOk : StatusCode::kInvalidArgument) << taken;
          if (change != 0) {
            EXPECT_EQ(session.State(), before);
          }
        }
      }
    }
  }
}

TEST(SessionLimitsTest, WhatDoesNotGoTogetherIsRefused) {
  struct Case {
    const char* field;
    void (*spoil)(v1::SessionRequest& request);
  };
  const Case cases[] = {
      {"quiet", [](v1::SessionRequest& r) { r.mutable_step()->set_quiet(true); }},
      {"layout", [](v1::SessionRequest& r) { r.mutable_step()->set_layout(static_cast<v1::Layout>(7)); }},
      {"dtype", [](v1::SessionRequest& r) { r.mutable_step()->clear_dtype(); }},
      {"output_dtype", [](v1::SessionRequest& r) { r.mutable_step()->set_output_dtype(static_cast<v1::Dtype>(9)); }},
      {"product_precision",
       [](v1::SessionRequest& r) { r.mutable_step()->set_product_precision(static_cast<v1::ProductPrecision>(9)); }},
      {"q_shared", [](v1::SessionRequest& r) { r.clear_q(), r.mutable_step()->mutable_q_shared(); }},
      {"k_shared", [](v1::SessionRequest& r) { r.clear_k(), r.mutable_step()->mutable_k_shared(); }},
      {"v_shared", [](v1::SessionRequest& r) { r.clear_v(), r.mutable_step()->mutable_v_shared(); }},
      {"output_shared", [](v1::SessionRequest& r) { r.mutable_step()->mutable_output_shared(); }},
      {"log_sum_exp_shared", [](v1::SessionRequest& r) { r.mutable_step()->mutable_log_sum_exp_shared(); }},
  };
  for (const Case& c : cases) {
    TestSteps session;
    Fill(session);
    v1::SessionRequest request = session.Step(2, 1);
    c.spoil(request);
    const std::string before = session.State();
    EXPECT_EQ(FieldOf(session.Take(request)), c.field);
    EXPECT_EQ(session.State(), before) << c.field;
  }
  // Without queries nothing of an answer.
  for (const char* field : {"output_shared", "log_sum_exp_shared", "q_shared"}) {
    TestSteps session;
    v1::SessionRequest request = session.Step(1, 0);
    const auto* const descriptor = v1::SessionStep::descriptor()->FindFieldByName(field);
    request.mutable_step()->GetReflection()->MutableMessage(request.mutable_step(), descriptor);
    EXPECT_EQ(FieldOf(session.Take(request)), std::string(field) == "q_shared" ? "q" : field);
    EXPECT_EQ(session->used_bytes(), 0);
  }
}

// Whatever is added to the message has its row in a table of this file.
TEST(SessionLimitsTest, EachFieldHasItsTest) {
  std::set<std::string> tested = {
      "query_length",       "dtype",    "layout",   "output_dtype",  "product_precision",  "quiet",
      "q_shared",           "k_shared", "v_shared", "output_shared", "log_sum_exp_shared", "key_bits",
      "return_log_sum_exp", "timeout"};  // session_driver_test.cc
  for (const Range& range : kRanges) {
    const std::string field = range.field;
    tested.insert(field.substr(0, field.find('[')));
  }
  const auto* const descriptor = v1::SessionStep::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    EXPECT_TRUE(tested.contains(std::string(descriptor->field(i)->name()))) << descriptor->field(i)->name();
  }
}

TEST(SessionLimitsTest, WithoutLayersOfAKindThereIsNothingToChange) {
  v1::SessionOpen crosses = PlainOpen(kRows, kSources);
  crosses.mutable_layers()->DeleteSubrange(0, 1);
  crosses.set_max_tokens(0);
  for (const bool starts : {false, true}) {
    TestSteps session(crosses);
    v1::SessionRequest request = session.Step(0, 0);
    AddEach(starts ? request.mutable_step()->mutable_key_starts() : request.mutable_step()->mutable_truncate(), 0);
    EXPECT_EQ(FieldOf(session.Take(request)), starts ? "key_starts" : "truncate");
  }
  TestSteps session(PlainOpen(kRows));
  v1::SessionRequest request = session.Step(0, 0);
  request.mutable_step()->set_key_bits_length(1);
  EXPECT_EQ(FieldOf(session.Take(request)), "key_bits");
}

}  // namespace
}  // namespace attnd::server
