#include "files/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace attnd::files {
namespace {

using ::testing::HasSubstr;

TEST(StrictJsonTest, ReadsWhatJsonSays) {
  const auto json = ParseStrictJson(R"( {"a": [1, -2, 2.5, true, null, "\u00e9"], "b": {"c": {}}, "d": []} )", 4);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(), R"({"a":[1,-2,2.5,true,null,"é"],"b":{"c":{}},"d":[]})");
}

TEST(StrictJsonTest, RefusesWhatItMust) {
  struct Case {
    std::string text;
    std::string says;
  };
  const Case cases[] = {
      {"", "input"},
      {"{", "unexpected end"},
      {"{} {}", "unexpected"},
      {R"({"a": 1, "a": 1})", R"(key "a" is given twice)"},
      {R"({"x": {"a": 1, "\u0061": 2}})", R"(key "a" is given twice)"},
      {"[[[[1]]]]", "nested deeper than 3"},
      {"\"\xff\"", "UTF-8"},
      {"\"\xed\xa0\x80\"", "UTF-8"},
      {"\"\xc0\xaf\"", "UTF-8"},
      {"\"a\nb\"", "control character"},
      {"[1e999]", "number overflow"},
      {"[NaN]", "invalid literal"},
      {"[01]", "unexpected"},
      {"[1,]", "unexpected"},
      {"// comment\n{}", "invalid literal"},
      {std::string("{}\0x", 4), "NUL"},
      {std::string("\"a\0\"", 4), "NUL"},
  };
  for (const Case& c : cases) {
    const auto json = ParseStrictJson(c.text, 3);
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(json.status().message()), HasSubstr(c.says)) << c.text;
  }
}

TEST(StrictJsonTest, RefusesAMillionBracketsWithoutRecursion) {
  EXPECT_FALSE(ParseStrictJson(std::string(1'000'000, '['), 64).ok());
}

TEST(StrictJsonTest, TheSameKeyMayStandInDifferentObjects) {
  EXPECT_TRUE(ParseStrictJson(R"([{"a": 1}, {"a": {"a": 1}}])", 4).ok());
}

}  // namespace
}  // namespace attnd::files
