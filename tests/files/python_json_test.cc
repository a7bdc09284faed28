#include "files/python_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace attnd::files {
namespace {

using ::testing::HasSubstr;

// What CPython 3.11's json.loads makes of the same text; infinite and NaN values, which dump() writes as null, are
// named.
TEST(PythonJsonTest, ReadsWhatPythonReads) {
  struct Case {
    std::string text;
    std::string dump;
  };
  const std::string digits(400, '9');
  const Case cases[] = {
      {R"( {"a": [1, -2, 2.5, true, null, "\u00e9"], "b": {"c": {}}} )",
       R"({"a":[1,-2,2.5,true,null,"\u00e9"],"b":{"c":{}}})"},
      {"[NaN,Infinity,-Infinity]", "[null,null,null]"},
      {"[1E400, -1e+999, 1e-400]", "[null,null,0.0]"},
      {"[" + digits + ", -" + digits + "]", "[null,null]"},
      {"[12345678901234567890123]", "[1.2345678901234568e+22]"},
      {R"({"a": 1, "b": 3, "a": [2]})", R"({"a":[2],"b":3})"},
      {R"(["\ud83d\ude00"])", R"(["\ud83d\ude00"])"},
      {R"(["\ud83d", "\ude00x", "\ud83d\ud83d\ude00", "\uD83D\n"])",
       R"(["\ufffd","\ufffdx","\ufffd\ud83d\ude00","\ufffd\n"])"},
      {R"(["NaN", "-Infinity", "\"NaN", "\\", "1e999", "\\ud83d"])",
       R"(["NaN","-Infinity","\"NaN","\\","1e999","\\ud83d"])"},
  };
  for (const Case& c : cases) {
    const auto json = ParsePythonJson(c.text, 8, DuplicateKeys::kLastCounts);
    ASSERT_TRUE(json.ok()) << c.text << ": " << json.status();
    EXPECT_EQ(json->dump(-1, ' ', true), c.dump) << c.text;
  }
}

TEST(PythonJsonTest, NumbersThatAreNotFiniteAreWhatTheySay) {
  const auto json = ParsePythonJson("[NaN, Infinity, -Infinity, 1e999, -1e999]", 8, DuplicateKeys::kRefused);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_TRUE(std::isnan((*json)[0].get<double>()));
  for (std::size_t i = 1; i < 5; ++i) EXPECT_EQ((*json)[i].get<double>(), i % 2 == 1 ? HUGE_VAL : -HUGE_VAL) << i;
}

TEST(PythonJsonTest, RefusesWhatPythonRefuses) {
  const std::string cases[] = {
      "",
      "{",
      "{} {}",
      "{NaN: 1}",
      "{Infinity: 1}",
      "[-NaN]",
      "[NaNs]",
      "[NaN5]",
      "[Infinity.]",
      "[+1]",
      "[01e999]",
      "[1.e999]",
      "[1e999x]",
      "[1e]",
      "[.5e999]",
      "[nan]",
      "[inf]",
      "[1,]",
      "// no\n{}",
      "\xEF\xBB\xBF{}",
      "\"\xff\"",
      "\"a\nb\"",
      "\"\\x\"",
      "[\"\\ud83]",
      "[\"\\u12g4\"]",
      "[\"\\",
      "[--Infinity]",
      std::string("{}\0x", 4),
  };
  for (const std::string& text : cases) {
    const auto json = ParsePythonJson(text, 8, DuplicateKeys::kLastCounts);
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(json.status().message()), HasSubstr("not JSON as Python reads it")) << text;
  }
  EXPECT_FALSE(ParsePythonJson(R"({"a": 1, "a": 1})", 8, DuplicateKeys::kRefused).ok());
  EXPECT_FALSE(ParsePythonJson(std::string(1'000'000, '['), 500, DuplicateKeys::kLastCounts).ok());
}

}  // namespace
}  // namespace attnd::files
