// Each limit of a request and of a reply: what just passes and what is one more, by the checks alone.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "attnd/client.h"
#include "attnd/error_detail.h"
#include "client/src/shape.h"
#include "gmock/gmock.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "test_request.h"

namespace attnd::client {
namespace {

using Change = std::function<void(ComputeRequest&)>;

// A batch of 2, 4 query heads over 2 key heads, 3 queries, 5 keys: all different, so that a limit by another axis
// shows.
struct Limit {
  const char* field;
  std::vector<Change> passes, refused;
};

constexpr std::int64_t kMostPosition = (std::int64_t{1} << 31) - 1;

// A destination of the right size, and what is beside it.
Change OutputOf(std::size_t bytes) {
  return [bytes](ComputeRequest& r) { r.output = {&r, bytes}; };
}
Change LogSumExpOf(std::size_t bytes) {
  return [bytes](ComputeRequest& r) { r.log_sum_exp = {&r, bytes}; };
}
template <typename T>
Change Set(std::vector<T> ComputeRequest::*field, std::vector<T> values) {
  return [=](ComputeRequest& r) { r.*field = values; };
}
Change Lengths(std::vector<std::int64_t> ComputeRequest::*field, std::vector<std::int64_t> values) {
  return Set(field, std::move(values));
}
Change WithSegments(std::vector<std::int64_t> queries, std::vector<std::int64_t> keys) {
  return [=](ComputeRequest& r) {
    r.query_segments = queries;
    r.key_segments = keys;
  };
}
Change SharedKeys(std::vector<std::int64_t> rows) {
  return [=](ComputeRequest& r) {
    r.k.sizes[0] = r.v.sizes[0] = 1;
    r.kv_rows = rows;
  };
}

std::vector<Limit> Limits() {
  using R = ComputeRequest;
  return {
      {"query_offset",
       {[](R& r) { r.query_offset = -3; }, [](R& r) { r.query_offset = kMostPosition - 3; }},
       {[](R& r) { r.query_offset = -4; }, [](R& r) { r.query_offset = kMostPosition - 2; }}},
      {"query_offsets",
       {Lengths(&R::query_offsets, {-3, kMostPosition - 3})},
       {Lengths(&R::query_offsets, {0, -4}), Lengths(&R::query_offsets, {kMostPosition - 2, 0}),
        Lengths(&R::query_offsets, {0}), Lengths(&R::query_offsets, {0, 0, 0})}},
      {"query_lengths",
       {Lengths(&R::query_lengths, {0, 3}), Lengths(&R::query_lengths, {3, 0})},
       {Lengths(&R::query_lengths, {0, 4}), Lengths(&R::query_lengths, {4, 0}), Lengths(&R::query_lengths, {-1, 0}),
        Lengths(&R::query_lengths, {3}), Lengths(&R::query_lengths, {3, 3, 3})}},
      {"key_lengths",
       {Lengths(&R::key_lengths, {0, 5}), Lengths(&R::key_lengths, {5, 0})},
       {Lengths(&R::key_lengths, {0, 6}), Lengths(&R::key_lengths, {6, 0}), Lengths(&R::key_lengths, {0, -1}),
        Lengths(&R::key_lengths, {5}), Lengths(&R::key_lengths, {5, 5, 5})}},
      {"key_starts",
       {Lengths(&R::key_starts, {0, 5}), Lengths(&R::key_starts, {5, 0})},
       {Lengths(&R::key_starts, {0, 6}), Lengths(&R::key_starts, {6, 0}), Lengths(&R::key_starts, {0, -1}),
        Lengths(&R::key_starts, {5}), Lengths(&R::key_starts, {0, 0, 0})}},
      {"prefix_lengths",
       {Lengths(&R::prefix_lengths, {0, 5}), Lengths(&R::prefix_lengths, {5, 0})},
       {Lengths(&R::prefix_lengths, {0, 6}), Lengths(&R::prefix_lengths, {6, 0}), Lengths(&R::prefix_lengths, {-1, 0}),
        Lengths(&R::prefix_lengths, {5}),
        [](R& r) {
          r.prefix_lengths = {1, 1};
          r.mask = Mask::kNone;
        }}},
      {"key_bits",
       {Set<unsigned char>(&R::key_bits, {0xff, 0xff})},
       {Set<unsigned char>(&R::key_bits, {0xff}), Set<unsigned char>(&R::key_bits, {0xff, 0xff, 0xff})}},
      {"key_bias",
       {Set<float>(&R::key_bias, std::vector<float>(4 * 5, -1.0F))},
       {Set<float>(&R::key_bias, std::vector<float>(4 * 5 - 1)),
        Set<float>(&R::key_bias, std::vector<float>(4 * 5 + 1)), Set<float>(&R::key_bias, std::vector<float>(2 * 5)),
        Set<float>(&R::key_bias, std::vector<float>(4 * 3)),
        Set<float>(&R::key_bias, std::vector<float>(20, std::nanf("")))}},
      {"window_left",
       {[](R& r) { r.window_left = 0; }, [](R& r) { r.window_left = kMostPosition; }},
       {[](R& r) { r.window_left = -1; }, [](R& r) { r.window_left = kMostPosition + 1; }}},
      {"window_right",
       {[](R& r) { r.window_right = 0; }, [](R& r) { r.window_right = kMostPosition; }},
       {[](R& r) { r.window_right = -1; }, [](R& r) { r.window_right = kMostPosition + 1; }}},
      {"first_head", {[](R& r) { r.first_head = 0; }}, {[](R& r) { r.first_head = -1; }}},
      {"scale",
       {[](R& r) { r.scale = 0.0F; }, [](R& r) { r.scale = std::numeric_limits<float>::max(); }},
       {[](R& r) { r.scale = INFINITY; }, [](R& r) { r.scale = -INFINITY; }, [](R& r) { r.scale = std::nanf(""); }}},
      {"kv_rows",
       {SharedKeys({0, 0})},
       {SharedKeys({0, 1}), SharedKeys({-1, 0}), SharedKeys({0}), SharedKeys({0, 0, 0})}},
      {"segments",
       {WithSegments({0, 1, 3}, {0, 2, 5}), WithSegments({0, 2, 3, 5}, {0, 4, 5, 9})},
       {WithSegments({0, 2, 3, 6}, {0, 4, 5, 9}), WithSegments({0, 2, 3, 5}, {0, 4, 5, 10}),
        WithSegments({0, 1, 4}, {0, 2, 5}), WithSegments({0, 1, 3}, {0, 2, 6}), WithSegments({0, 1, 3}, {0, 5, 5}),
        WithSegments({0, 0, 3}, {0, 2, 5}), WithSegments({1, 2, 3}, {0, 2, 5}), WithSegments({0, 1, 3}, {0, 2}),
        WithSegments({0, 1}, {0, 2}), WithSegments({-1, 1, 3}, {0, 2, 5})}},
      {"output",
       {OutputOf(2 * 4 * 3 * 6 * 4)},
       {OutputOf(2 * 4 * 3 * 6 * 4 - 1), OutputOf(2 * 4 * 3 * 6 * 4 + 1), OutputOf(0)}},
      {"log_sum_exp",
       {LogSumExpOf(2 * 4 * 3 * 4)},
       {LogSumExpOf(2 * 4 * 3 * 4 - 1), LogSumExpOf(2 * 4 * 3 * 4 + 1), LogSumExpOf(0)}},
      {"dtype",
       {[](R& r) { r.q.dtype = r.k.dtype = r.v.dtype = DType::kBf16; }},
       {[](R& r) { r.q.dtype = r.k.dtype = r.v.dtype = static_cast<DType>(0); },
        [](R& r) { r.q.dtype = r.k.dtype = r.v.dtype = static_cast<DType>(4); },
        [](R& r) { r.v.dtype = DType::kFp16; }}},
      {"output_dtype",
       {[](R& r) { r.output_dtype = DType::kBf16; }},
       {[](R& r) { r.output_dtype = static_cast<DType>(0); }, [](R& r) { r.output_dtype = static_cast<DType>(4); }}},
      {"layout",
       {},
       {[](R& r) { r.layout = static_cast<Layout>(0); }, [](R& r) { r.layout = static_cast<Layout>(3); }}},
  };
}

TEST(RequestLimits, WhatJustPassesAndOneMore) {
  for (const Limit& limit : Limits()) {
    for (std::size_t i = 0; i < limit.passes.size(); ++i) {
      TestRequest t;
      limit.passes[i](t.request);
      EXPECT_TRUE(CheckRequest(t.request).ok()) << limit.field << " " << i << ": " << CheckRequest(t.request).status();
    }
    for (std::size_t i = 0; i < limit.refused.size(); ++i) {
      TestRequest t;
      limit.refused[i](t.request);
      const absl::Status status = CheckRequest(t.request).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << limit.field << " " << i << ": " << status;
      ASSERT_TRUE(GetErrorDetail(status).has_value()) << limit.field << " " << i;
      const std::string field = GetErrorDetail(status)->field;
      EXPECT_NE(field.find(limit.field), std::string::npos) << i << ": " << field;
    }
  }
}

// Every size of every tensor from 1 on.
TEST(RequestLimits, EachAxisHasAtLeastOne) {
  TestRequest smallest({1, 1, 1, 1, 1, 1, 1});
  EXPECT_TRUE(CheckRequest(smallest.request).ok());
  for (TensorView ComputeRequest::*tensor : {&ComputeRequest::q, &ComputeRequest::k, &ComputeRequest::v}) {
    for (std::size_t axis = 0; axis < 4; ++axis) {
      TestRequest t({1, 1, 1, 1, 1, 1, 1});
      (t.request.*tensor).sizes[axis] = 0;
      EXPECT_EQ(CheckRequest(t.request).status().code(), absl::StatusCode::kInvalidArgument) << axis;
    }
  }
}

// Alone and together, q, k and v have at most what a message may have. Nothing of them is read.
TEST(RequestLimits, TheLargestMessageAndOneMore) {
  struct Case {
    const char* name;
    Sizes sizes;
    bool passes;
  };
  constexpr std::int64_t kThird = kMaxMessageBytes / 4 / 3;
  const char* const kAll = "q, k and v";
  for (const Case& c :
       {Case{kAll, {1, 1, 1, kThird - 2, kThird, 1, 1}, true}, Case{kAll, {1, 1, 1, kThird, kThird, 1, 1}, true},
        Case{kAll, {1, 1, 1, kThird + 1, kThird, 1, 1}, false}, Case{kAll, {1, 1, 1, 1, kThird + 400, 1, 2}, false},
        Case{"q", {1, 1, 1, kMaxMessageBytes / 4 + 1, 1, 1, 1}, false},
        Case{"k", {1, 1, 1, 1, kMaxMessageBytes / 4 + 1, 1, 1}, false},
        Case{"v", {1, 1, 1, 1, 3, 1, kMaxMessageBytes / 4 / 3 + 1}, false},
        Case{"output", {1, 1, 1, 3, 1, 1, kMaxMessageBytes / 4 / 3 + 1}, false}}) {
    const Sizes& s = c.sizes;
    TestRequest small;
    ComputeRequest r = small.request;
    r.q.sizes = {s.batch, s.heads, s.query_length, s.head_dim};
    r.k.sizes = {s.batch, s.kv_heads, s.key_length, s.head_dim};
    r.v.sizes = {s.batch, s.kv_heads, s.key_length, s.value_head_dim};
    const absl::Status status = CheckRequest(r).status();
    EXPECT_EQ(status.ok(), c.passes) << c.name << ": " << status;
    if (c.passes) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(GetErrorDetail(status)->field, c.name);
  }
  // With keys that rows share, by the rows that there are.
  TestRequest small;
  ComputeRequest r = small.request;
  r.q.sizes = {2, 1, 1, 1};
  r.k.sizes = r.v.sizes = {1, 1, kMaxMessageBytes / 4 / 2 - 1, 1};
  r.kv_rows = {0, 0};
  EXPECT_TRUE(CheckRequest(r).ok()) << CheckRequest(r).status();
  EXPECT_EQ(CheckRequest(r)->v_bytes, r.v.sizes[2] * 4);
}

// In pieces, only where no piece needs another one's keys.
TEST(RequestLimits, WhatMayBeCut) {
  TestRequest t({2, 4, 2, 3, 5, 8, 6});
  EXPECT_TRUE(CheckRequest(t.request)->cuttable);
  SharedKeys({0, 0})(t.request);
  EXPECT_FALSE(CheckRequest(t.request)->cuttable);
  TestRequest packed({2, 4, 2, 3, 5, 8, 6}), one({1, 4, 2, 3, 5, 8, 6});
  WithSegments({0, 1, 3}, {0, 2, 5})(packed.request);
  WithSegments({0, 1}, {0, 2})(one.request);
  EXPECT_FALSE(CheckRequest(packed.request)->cuttable);
  EXPECT_TRUE(CheckRequest(one.request)->cuttable);
}

// --- options

struct Option {
  const char* field;
  std::function<void(ClientOptions&)> passes, refused;
};

TEST(ClientOptionsLimits, TheLeastAndOneLess) {
  using O = ClientOptions;
  const absl::Duration kLeast = absl::Milliseconds(1), kLess = absl::Milliseconds(1) - absl::Nanoseconds(1);
  const Option kOptions[] = {
      {"keepalive_time", [=](O& o) { o.keepalive_time = kLeast; }, [=](O& o) { o.keepalive_time = kLess; }},
      {"keepalive_timeout", [=](O& o) { o.keepalive_timeout = kLeast; }, [=](O& o) { o.keepalive_timeout = kLess; }},
      {"retry.initial_backoff", [=](O& o) { o.retry.initial_backoff = kLeast; },
       [=](O& o) { o.retry.initial_backoff = kLess; }},
      {"retry.max_backoff", [=](O& o) { o.retry.max_backoff = kLeast; }, [=](O& o) { o.retry.max_backoff = kLess; }},
      {"retry.max_time", [](O& o) { o.retry.max_time = absl::ZeroDuration(); },
       [](O& o) { o.retry.max_time = -absl::Nanoseconds(1); }},
      {"retry.budget", [](O& o) { o.retry.budget = 0; }, [](O& o) { o.retry.budget = -1e-9; }},
      {"retry.budget", [](O& o) { o.retry.budget = 1; }, [](O& o) { o.retry.budget = std::nan(""); }},
      {"retry.reserve_per_second", [](O& o) { o.retry.reserve_per_second = 0; },
       [](O& o) { o.retry.reserve_per_second = -1e-9; }},
      {"load_balancing_policy", [](O& o) { o.load_balancing_policy = "round_robin"; },
       [](O& o) { o.load_balancing_policy = ""; }},
  };
  for (const Option& option : kOptions) {
    ClientOptions options;
    option.passes(options);
    EXPECT_TRUE(Client::Create("127.0.0.1:1", options).ok()) << option.field;
    options = {};
    option.refused(options);
    const absl::Status status = Client::Create("127.0.0.1:1", options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << option.field;
    ASSERT_TRUE(GetErrorDetail(status).has_value());
    EXPECT_EQ(GetErrorDetail(status)->field, option.field);
  }
  EXPECT_EQ(GetErrorDetail(Client::Create("").status())->field, "target");
}

}  // namespace
}  // namespace attnd::client
