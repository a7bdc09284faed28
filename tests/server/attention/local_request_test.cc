// Which datagrams are a session's message, and which a call whose request is at fault.

#include "server/attention/local_request.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "attnd/v1/local.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

constexpr std::int64_t kMaxHeaderBytes = 1 << 20;

std::string Field(int number, const std::string& bytes) {
  google::protobuf::UnknownFieldSet fields;
  fields.AddLengthDelimited(number, bytes);
  std::string field;
  fields.SerializeToString(&field);
  return field;
}
std::string Number(int number, std::uint64_t value) {
  google::protobuf::UnknownFieldSet fields;
  fields.AddVarint(number, value);
  std::string field;
  fields.SerializeToString(&field);
  return field;
}

constexpr int kSession = v1::LocalRequest::kSessionFieldNumber, kCall = v1::LocalRequest::kCallFieldNumber,
              kCancel = v1::LocalRequest::kCancelFieldNumber, kId = v1::LocalCall::kIdFieldNumber,
              kRequest = v1::LocalCall::kRequestFieldNumber;

TEST(LocalRequestTest, ASessionsMessageIsTheOnlyFieldOfItsDatagram) {
  const std::string message = "any bytes, whatever they are";
  for (const std::string& bytes : {std::string(), std::string("m"), message, std::string(60'000, 'x')}) {
    EXPECT_EQ(SessionMessageIn(Field(kSession, bytes)), bytes);
  }
  const std::string whole = Field(kSession, message);
  const std::string others[] = {
      "",
      "\x07",
      Field(kCall, message),
      Field(kCancel, ""),
      whole + Field(kSession, message),
      whole + Number(kId, 3),
      whole + std::string(1, '\0'),
      Number(kId, 3) + whole,
      Number(kSession, 3),
      whole.substr(0, 1),
  };
  for (const std::string& other : others) EXPECT_FALSE(SessionMessageIn(other).has_value()) << other;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(SessionMessageIn(whole.substr(0, size)).has_value()) << size;
  }
}

TEST(LocalRequestTest, ARefusedCallHasItsIdAndTheErrorOfItsRequest) {
  const std::string no_text = Field(v1::ComputeAttentionRequest::kModelFieldNumber, "\xff");
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  const struct {
    const char* what;
    std::string call;
    std::uint64_t id;
    absl::StatusCode code;
  } kCases[] = {
      {"an id", Number(kId, 42) + Field(kRequest, no_text), 42, absl::StatusCode::kInvalidArgument},
      {"the largest id", Number(kId, kMost) + Field(kRequest, no_text), kMost, absl::StatusCode::kInvalidArgument},
      {"no id", Field(kRequest, no_text), 0, absl::StatusCode::kInvalidArgument},
      {"the last id counts", Number(kId, 1) + Number(kId, 2) + Field(kRequest, no_text), 2,
       absl::StatusCode::kInvalidArgument},
      {"an id after the request", Field(kRequest, no_text) + Number(kId, 9), 9, absl::StatusCode::kInvalidArgument},
      {"the last request counts", Number(kId, 4) + Field(kRequest, "") + Field(kRequest, no_text), 4,
       absl::StatusCode::kInvalidArgument},
      {"noise", Number(kId, 5) + Field(kRequest, "\x07"), 5, absl::StatusCode::kInvalidArgument},
      {"a large header", Number(kId, 6) + Field(kRequest, Field(1, std::string(101, 'm'))), 6,
       absl::StatusCode::kResourceExhausted},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.what);
    const std::optional<RefusedCall> refused = ParseRefusedCall(Field(kCall, c.call), 100);
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->id, c.id);
    EXPECT_EQ(refused->status.code(), c.code) << refused->status;
  }
}

TEST(LocalRequestTest, WhatIsAtFaultOutsideARequestIsNoRefusedCall) {
  const std::string no_text = Field(v1::ComputeAttentionRequest::kModelFieldNumber, "\xff");
  const std::string bad = Field(kCall, Number(kId, 1) + Field(kRequest, no_text));
  const std::string cases[] = {
      "",
      "\x07",
      bad + "\x07",
      bad + bad,
      bad + Number(kId, 1),
      bad.substr(0, bad.size() - 1),
      Field(kCall, Number(kId, 1)),
      Field(kCall, Number(kId, 1) + Number(kRequest, 1)),
      Field(kCall, Number(kId, 1) + Field(kRequest, Field(1, "a good one"))),
      Field(kCall, "\x07"),
      Field(kCancel, Field(kRequest, no_text)),
      Field(kSession, no_text),
  };
  for (const std::string& c : cases) EXPECT_FALSE(ParseRefusedCall(c, kMaxHeaderBytes).has_value());
}

}  // namespace
}  // namespace attnd::server
