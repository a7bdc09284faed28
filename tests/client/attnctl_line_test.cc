#include "client/attnctl/line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Line, FlagsStandAnywhereInBothForms) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"bias", "book", "--queries", "6", "--format=svg"},
        {"--queries=6", "bias", "--format", "svg", "book"},
        {"--format", "svg", "--queries", "6", "bias", "book"}}) {
    Flags flags;
    const absl::StatusOr<Line> line = ParseLine(words, flags);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_EQ(line->command->name, "bias");
    EXPECT_THAT(line->arguments, ElementsAre("book"));
    EXPECT_FALSE(line->help);
    EXPECT_EQ(flags.queries.value(), 6);
    EXPECT_EQ(flags.format.value(), Format::kSvg);
  }
}

TEST(Line, ASwitchTakesNoWord) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({"models", "show", "--json", "book"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command->name, "models show");
  EXPECT_THAT(line->arguments, ElementsAre("book"));
  EXPECT_TRUE(flags.json.value());
  ASSERT_TRUE(ParseLine({"models", "list", "--json=false"}, flags).ok());
  EXPECT_FALSE(flags.json.value());
}

TEST(Line, EveryCommandTakesTheCommonFlags) {
  Flags flags;
  ASSERT_TRUE(ParseLine({"models", "list", "--server", "there:1", "--timeout=3s"}, flags).ok());
  EXPECT_EQ(flags.server.value(), "there:1");
  EXPECT_EQ(flags.timeout.value(), absl::Seconds(3));
}

TEST(Line, TheLastOfTwoCounts) {
  Flags flags;
  ASSERT_TRUE(ParseLine({"bias", "book", "--queries", "6", "--queries", "7"}, flags).ok());
  EXPECT_EQ(flags.queries.value(), 7);
}

TEST(Line, AValueMayLookLikeAFlagOrBeEmpty) {
  Flags flags;
  ASSERT_TRUE(ParseLine({"bias", "book", "--query_start", "-3", "--out", "--"}, flags).ok());
  EXPECT_EQ(flags.query_start.value(), -3);
  EXPECT_EQ(flags.out.value(), "--");
  ASSERT_TRUE(ParseLine({"bias", "book", "--out="}, flags).ok());
  EXPECT_EQ(flags.out.value(), "");
}

TEST(Line, TwoDashesEndFlags) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({"bias", "--", "--queries"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->arguments, ElementsAre("--queries"));
}

TEST(Line, TheLongestNameIsTheCommand) {
  Flags flags;
  absl::StatusOr<Line> line = ParseLine({"bias", "compare", "alibi:8", "--max_offset", "9", "book"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command->name, "bias compare");
  EXPECT_THAT(line->arguments, ElementsAre("alibi:8", "book"));
  // A model may have that name.
  line = ParseLine({"bias", "--queries", "4", "--", "compare"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command->name, "bias");
  EXPECT_THAT(line->arguments, ElementsAre("compare"));
  line = ParseLine({"bias", "compare", "--", "--queries"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command->name, "bias compare");
  EXPECT_THAT(line->arguments, ElementsAre("--queries"));
}

TEST(Line, ADashAloneIsAnArgument) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({"models", "load", "-"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->arguments, ElementsAre("-"));
}

TEST(Line, HelpIsOfACommandOrOfAll) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--help"}, {"-h"}, {"help"}, {"--help", "dance"}}) {
    Flags flags;
    const absl::StatusOr<Line> line = ParseLine(words, flags);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_TRUE(line->help);
    EXPECT_EQ(line->command, nullptr);
  }
  for (const std::vector<std::string>& words : {std::vector<std::string>{"models", "load", "--help"},
                                                {"help", "models", "load"},
                                                {"models", "load", "a", "b", "-h"},
                                                {"models", "load", "--queries", "many", "--help"}}) {
    Flags flags;
    const absl::StatusOr<Line> line = ParseLine(words, flags);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_TRUE(line->help);
    ASSERT_NE(line->command, nullptr);
    EXPECT_EQ(line->command->name, "models load");
    EXPECT_EQ(flags.queries.value(), 8);
  }
}

TEST(Line, OnlyTheFirstWordHelpAsksForHelp) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({"models", "show", "help"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_FALSE(line->help);
  EXPECT_THAT(line->arguments, ElementsAre("help"));
}

TEST(Line, RefusesWhatMakesNoSense) {
  const struct {
    std::vector<std::string> words;
    const char* message;
  } kCases[] = {
      {{}, "what is to be done?"},
      {{"dance"}, "there is no command \"dance\""},
      {{"models"}, "there is no command \"models\""},
      {{"models", "dance", "x"}, "there is no command \"models dance x\""},
      {{"show", "models"}, "there is no command \"show models\""},
      {{"info", "--dance"}, "there is no flag --dance"},
      {{"info", "--dance=1"}, "there is no flag --dance"},
      {{"info", "-v"}, "there is no flag -v"},
      {{"info", "--head", "1"}, "`attnctl info` takes no --head"},
      {{"bias", "book", "--queries"}, "--queries needs a value"},
      {{"bias", "book", "--queries", "many"}, "--queries: cannot understand \"many\""},
      {{"bias", "book", "--mask", "all"}, "--mask: expected causal or none, got all"},
      {{"models", "list", "more"}, "`attnctl models list` does not take \"more\""},
      {{"models", "show"}, "`attnctl models show` needs MODEL"},
      {{"bias", "compare"}, "`attnctl bias compare` needs SOURCE..."},
      {{"bias", "compare", "book", "--queries", "4"}, "`attnctl bias compare` takes no --queries"},
      {{"bias", "compare", "book", "--axis", "square"}, "--axis: expected auto, linear or log, got square"},
      {{"--", "models", "list"}, "there is no command \"models list\""},
      {{"models", "upload", "mine"}, "`attnctl models upload` needs MODEL PATH"},
      {{"models", "upload", "mine", "a", "b"}, "`attnctl models upload` does not take \"b\""},
  };
  for (const auto& c : kCases) {
    Flags flags;
    const absl::StatusOr<Line> line = ParseLine(c.words, flags);
    ASSERT_FALSE(line.ok()) << c.message;
    EXPECT_TRUE(IsUsageError(line.status())) << line.status();
    EXPECT_EQ(line.status().message(), c.message);
  }
}

TEST(Line, NoArgumentsAreNone) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({"info"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->arguments, IsEmpty());
}

}  // namespace
}  // namespace attnd::ctl
