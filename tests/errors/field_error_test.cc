#include "errors/field_error.h"

#include <string>

#include "errors/shown.h"
#include "gtest/gtest.h"

namespace attnd::errors {
namespace {

// The payload says what the message says.
void ExpectFault(const absl::Status& status, const std::string& field, const std::string& expected,
                 const std::string& got) {
  const std::optional<contract::Fault> fault = FaultOf(status);
  ASSERT_TRUE(fault.has_value()) << status;
  EXPECT_EQ(fault->field, field);
  EXPECT_EQ(fault->expected, expected);
  EXPECT_EQ(fault->got, got);
  EXPECT_EQ(status.message(), field + ": expected " + expected + ", got " + got);
}

TEST(FieldErrorTest, SaysTheSameInWordsAndAsData) {
  const absl::Status error = FieldError(absl::StatusCode::kNotFound, "table", "decoder", "\"x\"");
  EXPECT_EQ(error.code(), absl::StatusCode::kNotFound);
  ExpectFault(error, "table", "decoder", "\"x\"");
  ExpectFault(InvalidField("heads", "8", -5), "heads", "8", "-5");
}

// Words that a reader of the message could take for its structure.
TEST(FieldErrorTest, IsNotReadFromItsWords) {
  ExpectFault(InvalidField("a: expected b", "c, got d", "e, got f"), "a: expected b", "c, got d", "e, got f");
  EXPECT_FALSE(FaultOf(absl::NotFoundError("table: expected decoder, got x")).has_value());
  EXPECT_FALSE(FaultOf(absl::OkStatus()).has_value());
}

TEST(FieldErrorTest, WhatCameIsPrintableAndShort) {
  const std::string control("a\0\n\xff", 4);
  ExpectFault(InvalidField("f", "e", control), "f", "e", "a\\x00\\x0a\\xff");
  std::string euros;
  for (int i = 0; i < 1000; ++i) euros += "€";
  for (const char* shift : {"", "x", "xx"}) {
    const auto fault = FaultOf(InvalidField(euros, euros, shift + euros));
    ASSERT_TRUE(fault.has_value());
    for (const std::string& part : {fault->field, fault->expected, fault->got}) {
      EXPECT_LE(part.size(), 400u);
      EXPECT_EQ(Utf8Prefix(part), part.size());
    }
  }
}

// Headers carry each part three times: what is longer than its limit is cut to it, and what is as long is not.
TEST(FieldErrorTest, EachPartHasItsLimit) {
  for (const std::size_t more : {0U, 1U, 5000U}) {
    const auto size = [more](const std::string& part, std::size_t limit) {
      EXPECT_EQ(part.size(), limit);
      EXPECT_EQ(part.substr(limit - 3) == "...", more > 0);
    };
    const auto text = [more](std::size_t limit) { return std::string(limit + more, 'x'); };
    const auto fault = FaultOf(InvalidField(text(200), text(400), text(200)));
    ASSERT_TRUE(fault.has_value());
    size(fault->field, 200);
    size(fault->expected, 400);
    size(fault->got, 200);
    const auto under = FaultOf(Under("a.", InvalidField(text(198), "e", "g")));
    size(under->field, 200);
    const auto renamed = FaultOf(Renamed("f", text(198), InvalidField("f.y", "e", "g")));
    size(renamed->field, 200);
    const auto blamed = FaultOf(Blame(text(200), text(400), absl::NotFoundError(text(600))));
    size(blamed->field, 200);
    size(blamed->expected, 400);
    size(blamed->got, 600);
  }
}

TEST(FieldErrorTest, WhoKnowsThePathAddsIt) {
  const absl::Status error = FieldError(absl::StatusCode::kResourceExhausted, "values[3]", "less", "more");
  const absl::Status under = Under("table.t5.", error);
  EXPECT_EQ(under.code(), error.code());
  ExpectFault(under, "table.t5.values[3]", "less", "more");
  ExpectFault(Renamed("values", "slopes", error), "slopes[3]", "less", "more");
  for (const char* other : {"value", "heads", "values[3].x"}) EXPECT_EQ(Renamed(other, "slopes", error), error);
  const absl::Status plain = absl::UnknownError("why");
  EXPECT_EQ(Under("table.", plain), plain);
  EXPECT_EQ(Renamed("why", "x", plain), plain);
}

TEST(FieldErrorTest, AFieldIsBlamedForWhatItLedTo) {
  ExpectFault(Blame("path", "a model file", absl::NotFoundError("a.json: No such file")), "path", "a model file",
              "a.json: No such file");
  EXPECT_EQ(Blame("path", "a model file", absl::NotFoundError("x")).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Blame("path", "a model file", absl::OkStatus()).ok());
}

}  // namespace
}  // namespace attnd::errors
