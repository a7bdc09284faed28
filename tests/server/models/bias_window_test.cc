#include "server/models/bias_window.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

using testing::Test;

constexpr std::int64_t kMaxPosition = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kHeads = 3;
constexpr std::int64_t kFar = 1000;

bias::BiasTable Table(bias::Rule rule) {
  absl::StatusOr<bias::BiasTable> table = bias::BiasTable::Create(kHeads, std::move(rule));
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

std::vector<float> Distinct(std::int64_t count) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(i) + 0.25F);
  return values;
}

bias::BiasTable T5(bool bidirectional) { return Table(bias::T5Rule{8, 16, bidirectional, Distinct(8 * kHeads)}); }

class BiasWindowTest : public Test {
 protected:
  BiasWindowTest()
      : model_("m", 7, "test", absl::UnixEpoch(),
               {.tables = {{"decoder", T5(false)},
                           {"encoder", T5(true)},
                           {"decoder.1", Table(bias::AlibiRule{false, {0.5F, 0.25F, 0.125F}})},
                           {"encoder.1", Table(bias::PerOffsetRule{-2, Distinct(5 * kHeads)})}},
                .format = "",
                .architecture = ""},
               "hash") {
    request_.set_query_start(10);
    request_.set_query_count(4);
    request_.set_key_start(8);
    request_.set_key_count(5);
  }

  absl::StatusOr<v1::GetBiasResponse> Window(const std::function<void(v1::GetBiasRequest&)>& change = nullptr) {
    v1::GetBiasRequest request = request_;
    if (change != nullptr) change(request);
    v1::GetBiasResponse response;
    ATTND_RETURN_IF_ERROR(FillBiasWindow(request, model_, limits_, response));
    return response;
  }

  void ExpectRefused(const std::function<void(v1::GetBiasRequest&)>& change, absl::StatusCode code,
                     const std::string& field) {
    const absl::Status status = Window(change).status();
    EXPECT_EQ(status.code(), code) << status;
    const std::optional<v1::ErrorDetail> detail = DetailOf(status);
    ASSERT_TRUE(detail.has_value()) << status;
    EXPECT_EQ(detail->field(), field);
  }

  Limits limits_;
  model::Model model_;
  v1::GetBiasRequest request_;
};

// The whole answer, computed here from the table cell by cell.
TEST_F(BiasWindowTest, EveryCellIsTheTablesOwn) {
  for (const char* name : {"decoder", "encoder", "decoder.1", "encoder.1"}) {
    const bias::BiasTable& table = *model_.FindTable(name)->table;
    for (const v1::Mask mask : {v1::MASK_UNSPECIFIED, v1::MASK_CAUSAL, v1::MASK_NONE}) {
      SCOPED_TRACE(std::string(name) + " " + v1::Mask_Name(mask));
      const absl::StatusOr<v1::GetBiasResponse> window = Window([&](v1::GetBiasRequest& r) {
        r.set_table(name);
        r.set_mask(mask);
      });
      ASSERT_TRUE(window.ok()) << window.status();
      const bool causal = mask == v1::MASK_CAUSAL || (mask == v1::MASK_UNSPECIFIED && !table.bidirectional());
      v1::GetBiasResponse expected;
      expected.set_version(7);
      expected.set_content_hash("hash");
      expected.set_table(name);
      expected.set_mask(causal ? v1::MASK_CAUSAL : v1::MASK_NONE);
      for (std::int64_t head = 0; head < kHeads; ++head) expected.add_heads(head);
      for (std::int64_t head = 0; head < kHeads; ++head) {
        for (std::int64_t query = 10; query < 14; ++query) {
          for (std::int64_t key = 8; key < 13; ++key) {
            const std::int64_t offset = query - key;
            const bool masked = causal && key > query;
            expected.add_values(masked ? 0.0F : table.Value(head, offset));
            if (head > 0) continue;
            expected.add_offsets(offset);
            const std::optional<std::int64_t> bucket = table.Bucket(offset);
            if (bucket.has_value()) expected.add_buckets(masked ? -1 : static_cast<std::int32_t>(*bucket));
          }
        }
      }
      // Which bucket an offset is in is looked up far beyond the window, where the last bucket of each side has no end.
      std::map<std::int32_t, std::pair<std::int64_t, std::int64_t>> ranges;
      for (const std::int32_t bucket : window->buckets()) {
        if (bucket >= 0) ranges[bucket] = {1, 0};
      }
      for (std::int64_t offset = -kFar; offset <= kFar && !ranges.empty(); ++offset) {
        const auto range = ranges.find(static_cast<std::int32_t>(*table.Bucket(offset)));
        if (range == ranges.end()) continue;
        if (range->second.first > range->second.second) range->second = {offset, offset};
        range->second.second = offset;
      }
      for (const auto& [bucket, ends] : ranges) {
        v1::BucketRange& range = *expected.add_bucket_ranges();
        range.set_bucket(bucket);
        if (ends.first > -kFar) range.set_min_offset(ends.first);
        if (ends.second < kFar) range.set_max_offset(ends.second);
      }
      EXPECT_EQ(window->DebugString(), expected.DebugString());
      EXPECT_EQ(window->buckets_size(), std::string(name).find('.') == std::string::npos ? 20 : 0);
    }
  }
}

TEST_F(BiasWindowTest, TableIsNamedAsItWasFound) {
  const auto found = [&](const char* name) {
    const absl::StatusOr<v1::GetBiasResponse> window = Window([&](v1::GetBiasRequest& r) { r.set_table(name); });
    EXPECT_TRUE(window.ok()) << window.status();
    return window.ok() ? window->table() : "";
  };
  EXPECT_EQ(found(""), "decoder");
  EXPECT_EQ(found("decoder.1"), "decoder.1");
  EXPECT_EQ(found("encoder.5"), "encoder") << "of a table that all layers share";
}

TEST_F(BiasWindowTest, HeadsComeInTheOrderAskedForAndAsOften) {
  const std::vector<std::int64_t> heads = {2, 0, 2};
  const absl::StatusOr<v1::GetBiasResponse> all = Window();
  const absl::StatusOr<v1::GetBiasResponse> some = Window([&](v1::GetBiasRequest& r) {
    *r.mutable_heads() = {heads.begin(), heads.end()};
  });
  ASSERT_TRUE(all.ok() && some.ok());
  EXPECT_EQ(std::vector<std::int64_t>(some->heads().begin(), some->heads().end()), heads);
  constexpr int kCells = 20;
  ASSERT_EQ(some->values_size(), 3 * kCells);
  EXPECT_EQ(some->offsets_size(), kCells);
  EXPECT_EQ(some->buckets_size(), kCells);
  for (int h = 0; h < 3; ++h) {
    for (int cell = 0; cell < kCells; ++cell) {
      const int from = static_cast<int>(heads[static_cast<std::size_t>(h)]) * kCells + cell;
      EXPECT_EQ(some->values(h * kCells + cell), all->values(from));
    }
  }
  EXPECT_NE(some->values(0), some->values(kCells)) << "the heads differ";
}

TEST_F(BiasWindowTest, WindowsUpToTheLastPosition) {
  const absl::StatusOr<v1::GetBiasResponse> window = Window([](v1::GetBiasRequest& r) {
    r.set_query_start(kMaxPosition - 4);
    r.set_key_start(0);
    r.set_key_count(1);
  });
  ASSERT_TRUE(window.ok()) << window.status();
  EXPECT_EQ(window->offsets(3), kMaxPosition - 1);
  EXPECT_EQ(window->buckets(3), 7);
  const absl::StatusOr<v1::GetBiasResponse> before = Window([](v1::GetBiasRequest& r) {
    r.set_table("encoder");
    r.set_query_start(0);
    r.set_query_count(1);
    r.set_key_start(kMaxPosition - 5);
  });
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_EQ(before->offsets(4), 1 - kMaxPosition);
  EXPECT_EQ(before->values(4), model_.FindTable("encoder")->table->Value(0, 1 - kMaxPosition));
}

TEST_F(BiasWindowTest, CellsUpToTheLimit) {
  limits_.max_bias_cells = 4 * 5 * kHeads;
  EXPECT_TRUE(Window().ok());
  --limits_.max_bias_cells;
  ExpectRefused([](v1::GetBiasRequest&) {}, absl::StatusCode::kResourceExhausted, "query_count");
  const auto two_heads = [](v1::GetBiasRequest& r) {
    r.add_heads(0);
    r.add_heads(1);
  };
  EXPECT_TRUE(Window(two_heads).ok()) << "only the heads asked for count";
  limits_.max_bias_cells = 4 * 5 * 2 - 1;
  ExpectRefused(two_heads, absl::StatusCode::kResourceExhausted, "query_count");
  // Products that do not fit 64 bits.
  limits_.max_bias_cells = std::numeric_limits<std::int64_t>::max();
  ExpectRefused(
      [](v1::GetBiasRequest& r) {
        r.set_query_start(0);
        r.set_query_count(kMaxPosition);
        r.set_key_start(0);
        r.set_key_count(kMaxPosition);
      },
      absl::StatusCode::kResourceExhausted, "query_count");
}

// What a call reserves for its answer must cover it, and must not be much more: others are refused for it.
TEST_F(BiasWindowTest, TheBytesCoverTheAnswer) {
  for (const char* name : {"decoder", "encoder", "decoder.1", "encoder.1"}) {
    for (const int heads : {0, 1, 2, 7}) {
      SCOPED_TRACE(std::string(name) + " " + std::to_string(heads));
      v1::GetBiasRequest request = request_;
      request.set_table(name);
      request.set_query_start(100'000);
      request.set_query_count(120);
      request.set_key_count(110);
      request.set_mask(v1::MASK_NONE);
      for (int head = 0; head < heads; ++head) request.add_heads(head % kHeads);
      v1::GetBiasResponse window;
      ASSERT_EQ(FillBiasWindow(request, model_, limits_, window), absl::OkStatus());
      const auto needed = static_cast<std::int64_t>(window.SpaceUsedLong() + window.ByteSizeLong());
      const std::int64_t bytes = BiasWindowBytes(request, model_, limits_);
      constexpr std::int64_t kSmall = 4096;  // the message's other fields
      EXPECT_GE(bytes + kSmall, needed);
      EXPECT_LE(bytes, 3 * needed);
    }
  }
}

TEST_F(BiasWindowTest, AWindowThatIsRefusedNeedsNoBytes) {
  EXPECT_GT(BiasWindowBytes(request_, model_, limits_), 0);
  using Request = v1::GetBiasRequest;
  for (const std::function<void(Request&)>& change : std::vector<std::function<void(Request&)>>{
           [](Request& r) { r.set_table("no_such"); }, [](Request& r) { r.set_query_count(0); },
           [](Request& r) { r.set_key_count(kMaxPosition); }, [](Request& r) { r.add_heads(kHeads); },
           [](Request& r) { r.set_query_count(kMaxPosition + 1); }}) {
    Request request = request_;
    change(request);
    EXPECT_EQ(BiasWindowBytes(request, model_, limits_), 0) << request.ShortDebugString();
  }
}

TEST_F(BiasWindowTest, RefusesByField) {
  using Request = v1::GetBiasRequest;
  constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
  const struct {
    std::function<void(Request&)> change;
    const char* field;
  } kCases[] = {
      {[](Request& r) { r.set_query_count(0); }, "query_count"},
      {[](Request& r) { r.set_query_count(-1); }, "query_count"},
      {[](Request& r) { r.set_query_count(kLowest); }, "query_count"},
      {[](Request& r) { r.set_query_count(kMaxPosition + 1); }, "query_count"},
      {[](Request& r) { r.set_query_count(kHighest); }, "query_count"},
      {[](Request& r) { r.set_key_count(0); }, "key_count"},
      {[](Request& r) { r.set_key_count(kMaxPosition + 1); }, "key_count"},
      {[](Request& r) { r.set_query_start(-1); }, "query_start"},
      {[](Request& r) { r.set_query_start(kMaxPosition - 3); }, "query_start"},
      {[](Request& r) { r.set_query_start(kHighest); }, "query_start"},
      {[](Request& r) { r.set_query_start(kLowest); }, "query_start"},
      {[](Request& r) { r.set_key_start(-1); }, "key_start"},
      {[](Request& r) { r.set_key_start(kMaxPosition - 4); }, "key_start"},
      {[](Request& r) { r.set_key_start(kHighest); }, "key_start"},
      {[](Request& r) { r.add_heads(-1); }, "heads[0]"},
      {[](Request& r) {
         r.add_heads(kHeads - 1);
         r.add_heads(kHeads);
       },
       "heads[1]"},
      {[](Request& r) { r.set_mask(static_cast<v1::Mask>(99)); }, "mask"},
      {[](Request& r) { r.set_mask(static_cast<v1::Mask>(-1)); }, "mask"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.field);
    ExpectRefused(c.change, absl::StatusCode::kInvalidArgument, c.field);
  }
}

// The last value of each field that is accepted, and the next one, which is not.
TEST_F(BiasWindowTest, EachFieldUpToItsLimit) {
  using Request = v1::GetBiasRequest;
  struct Case {
    const char* field;
    std::int64_t lowest, highest;
    std::function<void(Request&, std::int64_t)> set;
  };
  for (const Case& c : {
           Case{"query_start", 0, kMaxPosition - 4, [](Request&r, std::int64_t v) { r.set_query_start(v); }},
           Case{"key_start", 0, kMaxPosition - 5, [](Request&r, std::int64_t v) { r.set_key_start(v); }},
           Case{"query_count", 1, 5,
                [](Request&r, std::int64_t v) {
                  r.set_query_start(kMaxPosition - 5);
                  r.set_query_count(v);
                }},
           Case{"key_count", 1, 6,
                [](Request&r, std::int64_t v) {
                  r.set_key_start(kMaxPosition - 6);
                  r.set_key_count(v);
                }},
           Case{"heads[0]", 0, kHeads - 1, [](Request&r, std::int64_t v) { r.add_heads(v); }},
       }) {
    SCOPED_TRACE(c.field);
    for (const std::int64_t value : {c.lowest, c.highest}) {
      EXPECT_TRUE(Window([&](Request& r) { c.set(r, value); }).ok()) << value;
    }
    for (const std::int64_t value : {c.lowest - 1, c.highest + 1}) {
      EXPECT_EQ(Window([&](Request& r) { c.set(r, value); }).status().code(), absl::StatusCode::kInvalidArgument)
          << value;
    }
  }
}

TEST_F(BiasWindowTest, TableThatTheModelLacks) {
  for (const char* name : {"no_such", "decoder.", "encoder.x"}) {
    const absl::Status status = Window([&](v1::GetBiasRequest& r) { r.set_table(name); }).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  }
}

}  // namespace
}  // namespace attnd::server
