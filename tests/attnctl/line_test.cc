#include "client/attnctl/line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/attnctl/mistakes.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
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

TEST(Line, AValueMayLookLikeAFlag) {
  Flags flags;
  ASSERT_TRUE(ParseLine({"attend", "--query_offset", "-3", "--output", "--", "--input=--output"}, flags).ok());
  EXPECT_EQ(flags.query_offset.value(), -3);
  EXPECT_EQ(flags.output.value(), "--");
  EXPECT_EQ(flags.input.value(), "--output");
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
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--help"}, {"-h"}, {"help"}}) {
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
    const char* advice;  // a part of it
  } kCases[] = {
      {{}, "expected a command, got none", "`attnctl --help` lists the commands"},
      {{"dance"}, "there is no command \"dance\"", "`attnctl --help` lists the commands"},
      {{"attned"}, "there is no command \"attned\"", "did you mean `attnctl attend`?"},
      {{"models"},
       "`attnctl models` needs a command: list, show, load, reload, unload or upload",
       "attnctl models list"},
      {{"models", "dance", "x"}, "there is no command \"models dance\"", "`attnctl models` takes list, show,"},
      {{"models", "listt"}, "there is no command \"models listt\"", "did you mean `attnctl models list`?"},
      {{"modles", "list"}, "there is no command \"modles\"", "did you mean `attnctl models list`?"},
      {{"model", "list"}, "there is no command \"model\"", "did you mean `attnctl models list`?"},
      {{"show", "models"}, "there is no command \"show\"", "did you mean `attnctl models show`?"},
      {{"show", "book"},
       "there is no command \"show\"",
       "did you mean `attnctl models show` or `attnctl sessions show`?"},
      {{"sessions", "kill", "3"},
       "there is no command \"sessions kill\"",
       "`attnctl sessions` takes list, show, evict"},
      {{"sessions"}, "`attnctl sessions` needs a command: list, show, evict or plan", "attnctl sessions list"},
      {{"sessions", "liist"}, "there is no command \"sessions liist\"", "did you mean `attnctl sessions list`?"},
      {{"session", "evict", "3"}, "there is no command \"session\"", "did you mean `attnctl sessions evict`?"},
      {{"evict", "3"}, "there is no command \"evict\"", "did you mean `attnctl sessions evict`?"},
      {{"sessions", "show", "1", "2"}, "`attnctl sessions show` does not take \"2\"", "`attnctl sessions show ID`"},
      {{"sessions", "plan", "--heads", "all"},
       "--heads: expected a whole number from 1 to 2147483647, got \"all\"",
       "write `--heads N`: query heads of a layer"},
      {{"sessions", "plan", "--heads"}, "--heads needs a value", "write `--heads N`: query heads of a layer"},
      {{"bias", "book", "--heads"}, "--heads needs a value", "write `--heads all|A,B,C`"},
      // A model may have the name that one argument is; nothing else makes sense of these.
      {{"bias", "compaer", "alibi:8"}, "there is no command \"bias compaer\"", "did you mean `attnctl bias compare`?"},
      {{"bias", "compaer", "--max_offset", "9"},
       "there is no command \"bias compaer\"",
       "did you mean `attnctl bias compare`?"},
      {{"help", "bias", "compaare"}, "there is no command \"bias compaare\"", "did you mean `attnctl bias compare`?"},
      {{"bias", "book", "alibi:8"}, "`attnctl bias` does not take \"alibi:8\"", "write `attnctl bias MODEL`"},
      {{"help", "dance"}, "there is no command \"dance\"", "lists the commands"},
      {{"models", "listt", "--help"}, "there is no command \"models listt\"", "did you mean `attnctl models list`?"},
      {{"info", "--dance"}, "there is no flag \"--dance\"", "`attnctl info --help`"},
      {{"info", "--dance=1"}, "there is no flag \"--dance\"", "`attnctl info --help`"},
      {{"info", "-v"}, "there is no flag \"-v\"", "`attnctl info --help`"},
      {{"bias", "book", "--quries", "3"}, "there is no flag \"--quries\"", "did you mean `--queries`?"},
      {{"--quries", "3", "bias", "book"}, "there is no flag \"--quries\"", "did you mean `--queries`?"},
      {{"attend", "--query-offset=3"}, "there is no flag \"--query-offset\"", "did you mean `--query_offset`?"},
      {{"bias", "book", "-queries", "3"}, "there is no flag \"-queries\"", "did you mean `--queries`?"},
      {{"info", "--quries", "3"}, "there is no flag \"--quries\"", "`attnctl info --help`"},
      {{"info", "--head", "1"}, "`attnctl info` takes no --head", "it is for `attnctl bias`"},
      {{"bias", "book", "--queries"}, "--queries needs a value", "write `--queries N`"},
      {{"attend", "--input", "--output", "o"}, "--input needs a value, got the flag --output", "`--input=--output`"},
      {{"bias", "book", "--queries", "many"},
       "--queries: expected a whole number from 1 to 2147483647, got \"many\"",
       "without --queries it is: 8"},
      {{"bias", "compare"}, "`attnctl bias compare` needs SOURCE...", "write `attnctl bias compare SOURCE...`"},
      {{"bias", "compare", "book", "--queries", "4"}, "`attnctl bias compare` takes no --queries", "`attnctl bias`"},
      {{"bias", "compare", "book", "--axis", "square"},
       "--axis: expected auto, linear or log, got \"square\"",
       "--axis"},
      {{"bias", "book", "--mask", "all"}, "--mask: expected causal or none, got \"all\"", "without --mask it is: "},
      {{"models", "list", "--format", "svg"}, "--format: expected text or json, got \"svg\"", "without --format"},
      {{"models", "list", "more"}, "`attnctl models list` does not take \"more\"", "write `attnctl models list`"},
      {{"models", "show"}, "`attnctl models show` needs MODEL", "write `attnctl models show MODEL`"},
      {{"models", "upload", "mine"}, "`attnctl models upload` needs PATH", "write `attnctl models upload MODEL PATH`"},
      {{"models", "upload", "mine", "a", "b"}, "`attnctl models upload` does not take \"b\"", "MODEL PATH`"},
  };
  for (const auto& c : kCases) {
    Flags flags;
    const absl::StatusOr<Line> line = ParseLine(c.words, flags);
    ASSERT_FALSE(line.ok()) << c.message;
    EXPECT_TRUE(IsUsageError(line.status())) << line.status();
    EXPECT_EQ(line.status().message(), c.message);
    EXPECT_THAT(AdviceOf(line.status()), HasSubstr(c.advice)) << c.message;
  }
}

// What was not found under a name that is nearly a command's.
TEST(Line, AMistypedSubcommandThatIsAnArgumentIsSuggestedAfterwards) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({"bias", "compaer"}, flags);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command->name, "bias");
  const absl::Status absent = absl::NotFoundError("no model \"compaer\"");
  EXPECT_THAT(AdviceOf(OrSubcommand(absent, *line->command, line->arguments)),
              HasSubstr("did you mean `attnctl bias compare`?"));
  EXPECT_EQ(AdviceOf(OrSubcommand(absent, *line->command, {"book"})), "");
  EXPECT_EQ(AdviceOf(OrSubcommand(absl::UnavailableError("away"), *line->command, line->arguments)), "");
  const absl::StatusOr<Line> no_group = ParseLine({"models", "show", "liist"}, flags);
  ASSERT_TRUE(no_group.ok()) << no_group.status();
  EXPECT_EQ(AdviceOf(OrSubcommand(absent, *no_group->command, no_group->arguments)), "");
}

TEST(Line, AGroupHasHelp) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"models", "--help"}, {"help", "models"}}) {
    Flags flags;
    const absl::StatusOr<Line> line = ParseLine(words, flags);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_TRUE(line->help);
    EXPECT_EQ(line->group, "models");
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
