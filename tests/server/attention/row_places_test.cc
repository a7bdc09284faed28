// Sequences packed into rows, and sequences that share keys: their places, and what is refused.

#include "server/attention/row_places.h"

#include <functional>
#include <string>
#include <vector>

#include "errors/field_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using Numbers = std::vector<std::int64_t>;
using Request = v1::ComputeAttentionRequest;
using testing::ElementsAre;

// Two rows of 8 queries and 10 keys, 3 heads of 2 numbers, [batch, heads, rows, dim].
kernel::Attention Tensors() {
  kernel::Attention a{};
  a.batch = 2;
  a.heads = a.kv_heads = 3;
  a.query_length = 8;
  a.key_length = 10;
  a.head_dim = a.value_head_dim = 2;
  a.q = {nullptr, 0, tensor::DType::kF32, 48, 16, 2};
  a.k = a.v = {nullptr, 0, tensor::DType::kF32, 60, 20, 2};
  a.out = {nullptr, tensor::DType::kF32, 48, 16, 2};
  return a;
}

Request With(const Numbers& queries, const Numbers& keys = {}) {
  Request request;
  request.mutable_query_segments()->Add(queries.begin(), queries.end());
  request.mutable_key_segments()->Add(keys.begin(), keys.end());
  return request;
}

TEST(RowPlacesTest, NothingChangesUnlessGiven) {
  kernel::Attention a = Tensors();
  RowPlaces places;
  EXPECT_TRUE(PlaceRows(Request(), a, places).ok());
  EXPECT_EQ(PlacesBytes(Request()), 0);
  EXPECT_EQ(a.q.starts, nullptr);
  EXPECT_EQ(a.k.starts, nullptr);
  EXPECT_EQ(a.out.starts, nullptr);
  EXPECT_EQ(a.log_sum_exp_starts, nullptr);
  EXPECT_EQ(a.batch, 2);
}

TEST(RowPlacesTest, EachSegmentIsASequence) {
  kernel::Attention a = Tensors();
  RowPlaces places;
  const Request request = With({0, 3, 8}, {0, 9, 10});
  ASSERT_TRUE(PlaceRows(request, a, places).ok());
  EXPECT_EQ(a.batch, 3);
  EXPECT_EQ(a.query_length, 8);
  EXPECT_EQ(a.key_length, 10);
  EXPECT_THAT(places.query_lengths, ElementsAre(3, 5, 8));
  EXPECT_THAT(places.key_lengths, ElementsAre(9, 1, 10));
  EXPECT_THAT(places.query_offsets, ElementsAre(6, -4, 2)) << "the last query stands at the last key";
  EXPECT_THAT(places.q, ElementsAre(0, 6, 48));
  EXPECT_THAT(places.k, ElementsAre(0, 18, 60));
  EXPECT_THAT(places.v, ElementsAre(0, 18, 60));
  EXPECT_THAT(places.out, ElementsAre(0, 6, 48));
  EXPECT_THAT(places.log_sum_exp, ElementsAre(0, 3, 24));
  EXPECT_EQ(a.log_sum_exp_stride, 8);
  EXPECT_EQ(kernel::PlaceOf(a.q, 2, 1, 4), 48 + 16 + 8);
  EXPECT_EQ(PlacesBytes(request), 3 * 64);
}

TEST(RowPlacesTest, KeysAsQueries) {
  kernel::Attention a = Tensors();
  a.key_length = 8;
  RowPlaces places;
  ASSERT_TRUE(PlaceRows(With({0, 7, 8, 9}), a, places).ok());
  EXPECT_THAT(places.query_lengths, ElementsAre(7, 1, 1, 7));
  EXPECT_EQ(places.key_lengths, places.query_lengths);
  EXPECT_EQ(a.query_length, 7) << "the longest";
}

TEST(RowPlacesTest, SequencesThatShareKeys) {
  kernel::Attention a = Tensors();
  RowPlaces places;
  Request request;
  request.set_kv_batch(5);
  request.add_kv_rows(4);
  request.add_kv_rows(0);
  ASSERT_TRUE(PlaceRows(request, a, places).ok());
  EXPECT_THAT(places.k, ElementsAre(240, 0));
  EXPECT_THAT(places.v, ElementsAre(240, 0));
  EXPECT_EQ(a.q.starts, nullptr);
  EXPECT_EQ(a.batch, 2);
}

TEST(RowPlacesTest, RefusalsNameFieldExpectedAndGot) {
  const auto beside = [](const std::function<void(Request&)>& change) {
    Request request = With({0, 8}, {0, 10});
    change(request);
    return request;
  };
  const auto rows = [](std::int64_t kv_batch, const Numbers& values) {
    Request request;
    request.set_kv_batch(kv_batch);
    request.mutable_kv_rows()->Add(values.begin(), values.end());
    return request;
  };
  const struct {
    Request request;
    std::string field, expected, got;
  } kBad[] = {
      {With({}, {0, 10}), "key_segments", "none without query_segments", "2 values"},
      {With({0, 8}), "key_segments", "2 values, as query_length is not key_length", "none"},
      {With({0, 8}, {0}), "key_segments", "2 values, as query_segments has", "1 values"},
      {With({0, 8}, {0, 4, 10}), "key_segments", "2 values, as query_segments has", "3 values"},
      {With({1, 8}, {0, 10}), "query_segments[0]", "0, where row 0 begins", "1"},
      {With({0, 9}, {0, 10}), "query_segments[1]", "8, where row 1 begins", "9"},
      {With({0, 3, 3, 8}, {0, 1, 2, 10}), "query_segments[2]", "4 to 15", "3"},
      {With({0, 8, 16}, {0, 10, 11}), "query_segments[2]", "9 to 15", "16"},
      {With({-1, 8}, {0, 10}), "query_segments[0]", "0 to 15", "-1"},
      {With({0, 4}, {0, 4}), "query_segments", "a sequence in each of 2 rows", "none in row 1"},
      {With({0, 8}, {0, 4}), "key_segments[1]", "a position in row 1, as query_segments has", "4"},
      {With({0, 4, 8}, {0, 10, 11}), "key_segments[1]", "a position in row 0, as query_segments has", "10"},
      {With({0, 8}, {0, 20}), "key_segments[1]", "1 to 19", "20"},
      {beside([](Request& r) { r.set_query_offset(0); }), "query_offset", "none with query_segments", "1 values"},
      {beside([](Request& r) { r.mutable_query_offsets()->Resize(2, 0); }), "query_offsets", "none with query_segments",
       "2 values"},
      {beside([](Request& r) { r.mutable_query_lengths()->Resize(2, 0); }), "query_lengths", "none with query_segments",
       "2 values"},
      {beside([](Request& r) { r.mutable_key_lengths()->Resize(2, 0); }), "key_lengths", "none with query_segments",
       "2 values"},
      {beside([](Request& r) { r.mutable_key_starts()->Resize(2, 0); }), "key_starts", "none with query_segments",
       "2 values"},
      {beside([](Request& r) { r.set_key_bits("abcd"); }), "key_bits", "none with query_segments", "4 values"},
      {beside([](Request& r) { r.mutable_prefix_lengths()->Resize(2, 0); }), "prefix_lengths",
       "none with query_segments", "2 values"},
      {beside([](Request& r) { r.mutable_key_bias()->Resize(30, 0); }), "key_bias", "none with query_segments",
       "30 values"},
      {beside([](Request& r) { r.mutable_kv_rows()->Resize(2, 0); }), "kv_rows", "none with query_segments",
       "2 values"},
      {rows(3, {}), "kv_rows", "2 (batch) values, as kv_batch is 3", "none"},
      {rows(3, {0}), "kv_rows", "none or 2 (batch) values", "1 values"},
      {rows(3, {0, 3}), "kv_rows[1]", "0 to 2", "3"},
      {rows(0, {2, 0}), "kv_rows[0]", "0 to 1", "2"},
      {rows(1, {-1, 0}), "kv_rows[0]", "0 to 0", "-1"},
  };
  for (const auto& bad : kBad) {
    kernel::Attention a = Tensors();
    RowPlaces places;
    const absl::Status status = PlaceRows(bad.request, a, places);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.request.DebugString();
    const auto fault = errors::FaultOf(status);
    ASSERT_TRUE(fault.has_value()) << status;
    EXPECT_EQ(fault->field, bad.field);
    EXPECT_EQ(fault->expected, bad.expected) << bad.request.ShortDebugString();
    EXPECT_EQ(fault->got, bad.got) << bad.request.ShortDebugString();
  }
}

}  // namespace
}  // namespace attnd::server
