// Every test runs over LimitRows(), so that a new limit is covered as soon as attnd/limits.inc has it.

#include "server/config/limits.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "attnd/v1/server.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();

// The defaults with one limit changed.
Limits With(const LimitRow& row, std::int64_t value) {
  Limits limits;
  limits.*row.value = value;
  return limits;
}

void ExpectRefused(const LimitRow& row, std::int64_t value) {
  const absl::Status status = CheckLimits(With(row, value));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.name << " " << value;
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  ASSERT_TRUE(detail.has_value()) << row.name << " " << value;
  EXPECT_EQ(detail->field(), std::string("--") + row.name);
  EXPECT_EQ(detail->got(), std::to_string(value));
  EXPECT_THAT(detail->expected(), HasSubstr(std::to_string(row.lowest)));
}

TEST(LimitsTest, RowsAreTheFieldsOfTheMessageInTheirOrder) {
  std::vector<std::string> rows;
  for (const LimitRow& row : LimitRows()) rows.emplace_back(row.name);
  std::vector<std::string> fields;
  const google::protobuf::Descriptor& message = *v1::Limits::descriptor();
  for (int i = 0; i < message.field_count(); ++i) {
    EXPECT_EQ(message.field(i)->number(), i + 1);
    EXPECT_EQ(message.field(i)->cpp_type(), google::protobuf::FieldDescriptor::CPPTYPE_INT64);
    fields.push_back(message.field(i)->name());
  }
  EXPECT_EQ(rows, fields);
}

TEST(LimitsTest, EachRowHasAMemberOfItsOwn) {
  Limits limits;
  std::set<const std::int64_t*> members;
  for (const LimitRow& row : LimitRows()) members.insert(&(limits.*row.value));
  EXPECT_EQ(members.size(), LimitRows().size());
  EXPECT_EQ(sizeof(Limits), LimitRows().size() * sizeof(std::int64_t)) << "a limit without a row";
}

TEST(LimitsTest, DefaultsArePositiveAndAllowed) {
  EXPECT_EQ(CheckLimits(Limits()), absl::OkStatus());
  for (const LimitRow& row : LimitRows()) {
    // There 0 means that peers share.
    const bool zero_by_default = std::string(row.name) == "max_peer_connections";
    EXPECT_EQ(Limits().*row.value == 0, zero_by_default) << row.name;
    EXPECT_GE(Limits().*row.value, 0) << row.name;
  }
}

// 0 stands for what fits the machine in those, and for nothing in the others.
TEST(LimitsTest, FittedLimitsMayBeZero) {
  EXPECT_EQ(CheckLimits(UnfittedLimits()), absl::OkStatus());
  int fitted = 0;
  for (const LimitRow& row : LimitRows()) {
    EXPECT_EQ(UnfittedLimits().*row.value, row.fitted ? 0 : Limits().*row.value) << row.name;
    EXPECT_TRUE(!row.fitted || row.lowest == 0) << row.name;
    fitted += row.fitted ? 1 : 0;
  }
  EXPECT_EQ(fitted, 8);
}

TEST(LimitsTest, LowestAndHighestAreAcceptedAndNothingBeyond) {
  int with_flag = 0;
  for (const LimitRow& row : LimitRows()) {
    if (!row.has_flag) continue;
    ++with_flag;
    ASSERT_LE(row.lowest, row.highest) << row.name;
    EXPECT_EQ(CheckLimits(With(row, row.lowest)), absl::OkStatus()) << row.name;
    EXPECT_EQ(CheckLimits(With(row, row.highest)), absl::OkStatus()) << row.name;
    if (row.lowest > kLowest) {
      ExpectRefused(row, row.lowest - 1);
      ExpectRefused(row, kLowest);
    }
    if (row.highest < kHighest) {
      ExpectRefused(row, row.highest + 1);
      ExpectRefused(row, kHighest);
    }
  }
  EXPECT_GT(with_flag, 0);
}

TEST(LimitsTest, HighestIsNamedOnlyWhereThereIsOne) {
  for (const LimitRow& row : LimitRows()) {
    if (!row.has_flag) continue;
    const std::optional<v1::ErrorDetail> detail = DetailOf(CheckLimits(With(row, row.lowest - 1)));
    ASSERT_TRUE(detail.has_value());
    const std::string lowest = std::to_string(row.lowest);
    EXPECT_EQ(detail->expected(),
              row.highest == kHighest ? "at least " + lowest : lowest + " to " + std::to_string(row.highest));
  }
}

// A limit without a flag is the program's own, not a user's to get wrong.
TEST(LimitsTest, FixedLimitsAreNotChecked) {
  for (const LimitRow& row : LimitRows()) {
    if (row.has_flag) continue;
    EXPECT_EQ(CheckLimits(With(row, -1)), absl::OkStatus()) << row.name;
  }
}

// gRPC and protobuf count a message's bytes in an int.
TEST(LimitsTest, MessagesStayBelowTwoGibibytes) {
  constexpr std::int64_t kMessage = std::numeric_limits<std::int32_t>::max();
  const auto highest = [](const std::string& name) {
    for (const LimitRow& row : LimitRows()) {
      if (row.name == name) return row.highest;
    }
    ADD_FAILURE() << "no limit " << name;
    return kHighest;
  };
  EXPECT_LE(highest("max_request_bytes"), kMessage);
  EXPECT_LE(highest("max_result_bytes"), kMessage - Limits().max_header_bytes);
  // At most ten bytes of offset and bucket, and four of a value, for each cell.
  EXPECT_LE(highest("max_bias_cells"), kMessage / 14);
}

}  // namespace
}  // namespace attnd::server
