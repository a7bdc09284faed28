#include "server/rpc/status.h"

#include <cstddef>
#include <optional>
#include <string>
#include <tuple>

#include "absl/time/time.h"
#include "attnd/v1/attention.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;

TEST(StatusTest, EveryCodeIsKept) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status = ToGrpc(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "why");
    // The details say the same, so that a client knows who sent it.
    google::protobuf::UnknownFieldSet fields;
    ASSERT_TRUE(fields.ParseFromString(status.error_details()));
    ASSERT_EQ(fields.field_count(), 2);
    EXPECT_EQ(fields.field(0).varint(), static_cast<unsigned>(code));
    EXPECT_EQ(fields.field(1).length_delimited(), "why");
  }
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
}

// google.rpc.Status, read field by field: 1 code, 2 message, 3 details.
TEST(StatusTest, FieldErrorTravelsAsGoogleRpcStatus) {
  const absl::Status error = InvalidField("heads", "8", 5);
  EXPECT_EQ(error.message(), "heads: expected 8, got 5");
  const grpc::Status status = ToGrpc(error);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "heads: expected 8, got 5");

  google::protobuf::UnknownFieldSet fields;
  ASSERT_TRUE(fields.ParseFromString(status.error_details()));
  ASSERT_EQ(fields.field_count(), 3);
  EXPECT_EQ(fields.field(0).number(), 1);
  EXPECT_EQ(fields.field(0).varint(), 3u);
  EXPECT_EQ(fields.field(1).number(), 2);
  EXPECT_EQ(fields.field(1).length_delimited(), "heads: expected 8, got 5");
  EXPECT_EQ(fields.field(2).number(), 3);
  google::protobuf::Any any;
  ASSERT_TRUE(any.ParseFromString(fields.field(2).length_delimited()));
  v1::ErrorDetail detail;
  ASSERT_TRUE(any.UnpackTo(&detail)) << any.type_url();
  EXPECT_EQ(detail.field(), "heads");
  EXPECT_EQ(detail.expected(), "8");
  EXPECT_EQ(detail.got(), "5");
}

// A detail is what the code at fault said as data; no message is read for one.
TEST(StatusTest, AMessageAloneIsNoDetail) {
  for (const char* plain : {"", "no such model", "table: expected decoder, got \"x\""}) {
    EXPECT_THAT(ToGrpc(absl::NotFoundError(plain)).error_details(), testing::Not(HasSubstr("ErrorDetail"))) << plain;
    EXPECT_FALSE(DetailOf(absl::NotFoundError(plain)).has_value());
  }
}

TEST(StatusTest, WhatTheCallerSentIsEscapedAndCut) {
  const absl::Status error = InvalidField("model", "a name", std::string("a\0\n", 3) + std::string(100000, 'x'));
  EXPECT_THAT(std::string(error.message()), HasSubstr("got a\\x00\\x0axxx"));
  EXPECT_LT(error.message().size(), 400u);
  EXPECT_LT(ToGrpc(error).error_details().size(), 1000u);
  EXPECT_LT(ToGrpc(absl::InternalError(std::string(1 << 20, 'y'))).error_message().size(), 3000u);
  EXPECT_EQ(ToGrpc(absl::InternalError(std::string(1 << 20, 'y'))).error_details(), "");
  EXPECT_EQ(ToGrpc(absl::InternalError("a\xff\n€")).error_message(), "a\\xff\\x0a€");
}

TEST(StatusTest, ARetryDelayIsInTheDetailAndARetryInfo) {
  absl::Status error = FieldError(absl::StatusCode::kResourceExhausted, "request", "less", "more");
  EXPECT_FALSE(DetailOf(error)->has_retry_delay());
  SetRetryDelay(absl::Milliseconds(1250), error);
  EXPECT_EQ(DetailOf(error)->retry_delay().seconds(), 1);
  EXPECT_EQ(DetailOf(error)->retry_delay().nanos(), 250000000);
  google::protobuf::UnknownFieldSet fields;
  ASSERT_TRUE(fields.ParseFromString(ToGrpc(error).error_details()));
  ASSERT_EQ(fields.field_count(), 4);
  google::protobuf::Any any;
  ASSERT_TRUE(any.ParseFromString(fields.field(3).length_delimited()));
  EXPECT_EQ(any.type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  google::protobuf::UnknownFieldSet info;
  ASSERT_TRUE(info.ParseFromString(any.value()));
  ASSERT_EQ(info.field_count(), 1);
  google::protobuf::Duration delay;
  ASSERT_TRUE(delay.ParseFromString(info.field(0).length_delimited()));
  EXPECT_EQ(delay.seconds(), 1);
  EXPECT_EQ(delay.nanos(), 250000000);
}

// HTTP/2 headers carry message and details, percent-encoded and in base64, and the usual limit of them is 8 KiB.
TEST(StatusTest, MessagesAndDetailsOfAnyLengthFitTheHeaders) {
  for (const std::size_t length : {0u, 1u, 499u, 500u, 501u, 1000u, 1999u, 2000u, 2001u, 5000u, 100'000u}) {
    SCOPED_TRACE(length);
    const std::string text(length, 'x');
    const grpc::Status plain = ToGrpc(absl::InternalError(text));
    EXPECT_EQ(plain.error_message().size() == length, length <= 2000) << "longer ones are cut";
    EXPECT_EQ(plain.error_details().empty(), length > 500) << "twice it might not fit";
    for (const auto& [field, expected, got] :
         {std::tuple{text, std::string("a"), std::string("b")}, {"a", text, "b"}, {"a", "b", text}}) {
      absl::Status status = FieldError(absl::StatusCode::kNotFound, field, expected, got);
      SetRetryDelay(absl::Hours(24), status);
      const grpc::Status shown = ToGrpc(status);
      EXPECT_NE(shown.error_details(), "") << "a field at fault is always named";
      EXPECT_LT(shown.error_message().size() + shown.error_details().size() * 4 / 3, 7500U);
    }
  }
}

TEST(StatusTest, RetryDelaysAreExact) {
  EXPECT_EQ(RetryDelayOf(absl::InternalError("x")), std::nullopt);
  EXPECT_EQ(RetryDelayOf(absl::OkStatus()), std::nullopt);
  for (const absl::Duration delay : {absl::Nanoseconds(1), absl::Milliseconds(1500), absl::Hours(24 * 365)}) {
    absl::Status status = absl::UnavailableError("x");
    SetRetryDelay(delay, status);
    EXPECT_EQ(RetryDelayOf(status), delay);
    SetRetryDelay(2 * delay, status);
    EXPECT_EQ(RetryDelayOf(status), 2 * delay) << "the last one counts";
    EXPECT_FALSE(DetailOf(status).has_value()) << "a delay is no field";
    EXPECT_THAT(ToGrpc(status).error_details(), HasSubstr("google.rpc.RetryInfo"));
  }
}

TEST(StatusTest, ErrorsOfPiecesAreAsThoseOfCalls) {
  absl::Status status = InvalidField("heads", "8", 5);
  SetRetryDelay(absl::Seconds(2), status);
  v1::StreamAttentionResponse answer;
  SetError(status, answer);
  EXPECT_EQ(answer.code(), 3);
  EXPECT_EQ(answer.message(), "heads: expected 8, got 5");
  EXPECT_EQ(answer.detail().DebugString(), DetailOf(status)->DebugString());
  EXPECT_EQ(answer.detail().retry_delay().seconds(), 2);
  v1::StreamAttentionResponse plain;
  SetError(absl::InternalError(std::string(100'000, 'y')), plain);
  EXPECT_EQ(plain.code(), 13);
  EXPECT_LE(plain.message().size(), 2000U);
  EXPECT_FALSE(plain.has_detail());
}

// Clients send such a call elsewhere.
TEST(StatusTest, AStoppingServerIsUnavailable) {
  EXPECT_EQ(StoppingError().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RetryDelayOf(StoppingError()), std::nullopt);
}

}  // namespace
}  // namespace attnd::server
