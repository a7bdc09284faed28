// Which values are taken, up to the last ones, and what is said of the others.

#include "server/attention/masks.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "errors/field_error.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;
using Change = std::function<void(Request&)>;

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kLastPosition = std::numeric_limits<std::int32_t>::max();

// Two sequences of 5 queries and 9 keys.
kernel::Attention Sizes() {
  kernel::Attention attention{};
  attention.batch = 2;
  attention.heads = 3;
  attention.query_length = 5;
  attention.key_length = 9;
  return attention;
}

using Field = google::protobuf::RepeatedField<std::int64_t>* (Request::*)();

Change Add(Field field, std::vector<std::int64_t> values) {
  return [field, values = std::move(values)](Request& r) { (r.*field)()->Add(values.begin(), values.end()); };
}

Change Bits(std::size_t bytes) {
  return [bytes](Request& r) { r.set_key_bits(std::string(bytes, '\1')); };
}

Change Window(std::int64_t left, std::int64_t right) {
  return [left, right](Request& r) {
    r.set_window_left(left);
    r.set_window_right(right);
  };
}

Change KeyBias(int values, float last = 1) {
  return [values, last](Request& r) {
    r.mutable_key_bias()->Resize(values, -2);
    r.set_key_bias(values - 1, last);
  };
}

constexpr Field kPrefixLengths = &Request::mutable_prefix_lengths;
constexpr Field kQueryOffsets = &Request::mutable_query_offsets;
constexpr Field kQueryLengths = &Request::mutable_query_lengths;
constexpr Field kKeyLengths = &Request::mutable_key_lengths;
constexpr Field kKeyStarts = &Request::mutable_key_starts;

TEST(MasksTest, NothingIsPointedToUnlessGiven) {
  kernel::Attention a = Sizes();
  ASSERT_TRUE(SetSequences(Request(), a).ok());
  EXPECT_EQ(a.query_offset, 4);
  EXPECT_EQ(a.query_offsets, nullptr);
  EXPECT_EQ(a.query_lengths, nullptr);
  EXPECT_EQ(a.key_lengths, nullptr);
  EXPECT_EQ(a.key_starts, nullptr);
  EXPECT_EQ(a.key_bits, nullptr);
  EXPECT_EQ(a.left, kernel::kAnyDistance);
  EXPECT_EQ(a.right, kernel::kAnyDistance);
  EXPECT_EQ(a.prefix_lengths, nullptr);
  EXPECT_EQ(a.key_bias, nullptr);
}

TEST(MasksTest, OutermostValuesAreTaken) {
  const Change kGood[] = {
      Add(kQueryOffsets, {-5, kLastPosition - 5}),
      Add(kQueryLengths, {0, 5}),
      Add(kKeyLengths, {0, 9}),
      Add(kKeyStarts, {0, 9}),
      Bits(4),
      Window(0, 0),
      Window(kLastPosition, kLastPosition),
      Add(kPrefixLengths, {0, 9}),
      KeyBias(27, std::numeric_limits<float>::max()),
      [](Request& r) {  // all together
        Window(3, 4)(r);
        r.mutable_prefix_lengths()->Resize(2, 8);
        KeyBias(27)(r);
        r.mutable_query_offsets()->Resize(2, 1);
        r.mutable_query_lengths()->Resize(2, 1);
        r.mutable_key_lengths()->Resize(2, 1);
        r.mutable_key_starts()->Resize(2, 8);
        r.set_key_bits("four");
      },
  };
  for (const Change& good : kGood) {
    kernel::Attention a = Sizes();
    Request request;
    good(request);
    EXPECT_TRUE(SetSequences(request, a).ok()) << SetSequences(request, a) << request.DebugString();
  }
}

TEST(MasksTest, RefusalsNameFieldExpectedAndGot) {
  const std::string offsets = absl::StrCat("-5 to ", kLastPosition - 5);
  const std::string positions = absl::StrCat("0 to ", kLastPosition);
  const std::string biases = "none or 3 (heads) x 9 (keys) values";
  const std::string bytes = "none or 2 (batch) x 2 bytes (a bit for each of 9 keys)";
  const struct {
    Change change;
    std::string field, expected, got;
  } kBad[] = {
      {Add(kQueryOffsets, {0}), "query_offsets", "none or 2 (batch) values", "1 values"},
      {Add(kQueryOffsets, {0, 0, 0}), "query_offsets", "none or 2 (batch) values", "3 values"},
      {Add(kQueryOffsets, {-6, 0}), "query_offsets[0]", offsets, "-6"},
      {Add(kQueryOffsets, {0, kLastPosition - 4}), "query_offsets[1]", offsets, absl::StrCat(kLastPosition - 4)},
      {Add(kQueryOffsets, {kLeast, 0}), "query_offsets[0]", offsets, absl::StrCat(kLeast)},
      {Add(kQueryOffsets, {0, kMost}), "query_offsets[1]", offsets, absl::StrCat(kMost)},
      {[](Request& r) {
         r.set_query_offset(4);
         r.mutable_query_offsets()->Resize(2, 4);
       },
       "query_offsets", "none beside query_offset", "2 values"},
      {Add(kKeyStarts, {0}), "key_starts", "none or 2 (batch) values", "1 values"},
      {Add(kKeyStarts, {0, -1}), "key_starts[1]", "0 to 9", "-1"},
      {Add(kKeyStarts, {10, 0}), "key_starts[0]", "0 to 9", "10"},
      {Add(kKeyStarts, {kMost, 0}), "key_starts[0]", "0 to 9", absl::StrCat(kMost)},
      {Add(kKeyLengths, {0, 10}), "key_lengths[1]", "0 to 9", "10"},
      {Add(kQueryLengths, {6, 0}), "query_lengths[0]", "0 to 5", "6"},
      {Bits(1), "key_bits", bytes, "1 bytes"},
      {Bits(2), "key_bits", bytes, "2 bytes"},
      {Bits(3), "key_bits", bytes, "3 bytes"},
      {Bits(5), "key_bits", bytes, "5 bytes"},
      {Bits(6), "key_bits", bytes, "6 bytes"},
      {Bits(18), "key_bits", bytes, "18 bytes"},
      {Window(-1, 0), "window_left", positions, "-1"},
      {Window(kLastPosition + 1, 0), "window_left", positions, absl::StrCat(kLastPosition + 1)},
      {Window(0, kLeast), "window_right", positions, absl::StrCat(kLeast)},
      {Window(0, kMost), "window_right", positions, absl::StrCat(kMost)},
      {Add(kPrefixLengths, {1}), "prefix_lengths", "none or 2 (batch) values", "1 values"},
      {Add(kPrefixLengths, {1, 10}), "prefix_lengths[1]", "0 to 9", "10"},
      {Add(kPrefixLengths, {-1, 0}), "prefix_lengths[0]", "0 to 9", "-1"},
      {KeyBias(1), "key_bias", biases, "1 values"},
      {KeyBias(26), "key_bias", biases, "26 values"},
      {KeyBias(9), "key_bias", biases, "9 values"},
      {KeyBias(54), "key_bias", biases, "54 values"},
      {KeyBias(27, std::numeric_limits<float>::infinity()), "key_bias[26]", "a finite number", "inf"},
      {KeyBias(27, std::numeric_limits<float>::quiet_NaN()), "key_bias[26]", "a finite number", "nan"},
  };
  for (const auto& bad : kBad) {
    kernel::Attention a = Sizes();
    Request request;
    bad.change(request);
    const absl::Status status = SetSequences(request, a);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << request.DebugString();
    const auto fault = errors::FaultOf(status);
    ASSERT_TRUE(fault.has_value()) << status;
    EXPECT_EQ(fault->field, bad.field);
    EXPECT_EQ(fault->expected, bad.expected);
    EXPECT_EQ(fault->got, bad.got);
  }
}

TEST(MasksTest, EverySequenceHasBytesOfItsOwn) {
  const auto taken = [](std::int64_t keys, std::size_t bytes) {
    kernel::Attention a = Sizes();
    a.key_length = keys;
    Request request;
    Bits(bytes)(request);
    return SetSequences(request, a).ok();
  };
  for (const std::int64_t keys : {1, 7, 8, 9, 15, 16, 17, 64, 65, 1000}) {
    const auto bytes = static_cast<std::size_t>(2 * ((keys + 7) / 8));
    EXPECT_TRUE(taken(keys, bytes)) << keys;
    EXPECT_FALSE(taken(keys, bytes - 1)) << keys;
    EXPECT_FALSE(taken(keys, bytes + 1)) << keys;
  }
}

TEST(MasksTest, APrefixNeedsACausalMask) {
  kernel::Attention a = Sizes();
  a.mask = kernel::Mask::kNone;
  Request request;
  Add(kPrefixLengths, {0, 3})(request);
  const auto fault = errors::FaultOf(SetSequences(request, a));
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->field, "prefix_lengths");
  EXPECT_EQ(fault->expected, "none without a causal mask");
  EXPECT_EQ(fault->got, "2 values");
}

TEST(MasksTest, AMaskOfTheTableUnlessGiven) {
  const auto mask = [](v1::Mask given, kernel::Mask of_table) {
    kernel::Attention a{};
    Request request;
    request.set_mask(given);
    EXPECT_TRUE(SetMask(request, of_table, a).ok());
    return a.mask;
  };
  for (const kernel::Mask of_table : {kernel::Mask::kNone, kernel::Mask::kCausal}) {
    EXPECT_EQ(mask(v1::MASK_UNSPECIFIED, of_table), of_table);
    EXPECT_EQ(mask(v1::MASK_NONE, of_table), kernel::Mask::kNone);
    EXPECT_EQ(mask(v1::MASK_CAUSAL, of_table), kernel::Mask::kCausal);
  }
  kernel::Attention a{};
  Request request;
  request.set_mask(static_cast<v1::Mask>(3));
  EXPECT_EQ(errors::FaultOf(SetMask(request, kernel::Mask::kNone, a))->got, "3");
}

}  // namespace
}  // namespace attnd::server
