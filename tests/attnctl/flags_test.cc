// The table of flags, and what the commands and their help make of it.
#include "client/attnctl/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/commands.h"
#include "client/attnctl/help.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<const Flag*> All(const Flags& flags) {
  std::vector<const Flag*> all(flags.common.begin(), flags.common.end());
  all.insert(all.end(), flags.own.begin(), flags.own.end());
  return all;
}

TEST(Flags, EachIsNamedOnceAndDescribed) {
  const Flags flags;
  std::set<std::string> names;
  for (const Flag* flag : All(flags)) {
    EXPECT_TRUE(names.insert(flag->name()).second) << flag->name();
    EXPECT_EQ(flags.Find(flag->name()), flag);
    EXPECT_FALSE(flag->help().empty()) << flag->name();
  }
  EXPECT_EQ(flags.Find("dance"), nullptr);
}

TEST(Flags, EveryCommandsFlagsExist) {
  const Flags flags;
  for (const Command& command : Commands()) {
    for (const std::string& name : command.flags) {
      const Flag* const flag = flags.Find(name);
      EXPECT_TRUE(flag != nullptr && testing::Matches(testing::Contains(flag))(flags.own))
          << command.name << " --" << name;
    }
  }
}

TEST(Flags, EveryFlagIsOfACommandOrOfAll) {
  const Flags flags;
  std::set<std::string> taken;
  for (const Command& command : Commands()) taken.insert(command.flags.begin(), command.flags.end());
  for (const Flag* flag : flags.own) EXPECT_EQ(taken.count(flag->name()), 1) << flag->name();
}

TEST(Flags, HelpListsACommandsFlagsAndThoseOfAll) {
  const Flags flags;
  for (const Command& command : Commands()) {
    std::set<std::string> expected(command.flags.begin(), command.flags.end()), listed;
    for (const Flag* flag : flags.common) expected.insert(flag->name());
    const std::string help = HelpFor(command, flags);
    for (const absl::string_view line : absl::StrSplit(help.substr(help.find("\nFlags ")), '\n')) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (!words.empty() && words[0].rfind("--", 0) == 0) listed.insert(words[0].substr(2));
    }
    EXPECT_EQ(listed, expected) << command.name;
  }
}

TEST(Flags, HelpShowsPlaceholderAndDefault) {
  const Flags flags;
  for (const Command& command : Commands()) {
    if (command.name != "bias") continue;
    const std::string help = HelpFor(command, flags);
    EXPECT_THAT(help, HasSubstr("\n  --format text|svg|json  form of what is printed (text)\n"));
    EXPECT_THAT(help, HasSubstr("\n  --keys M                number of keys, the columns (as many as queries)\n"));
  }
  EXPECT_THAT(GeneralHelp(flags), HasSubstr("\n  --timeout DURATION      give up after this long, e.g. 30s (5m)\n"));
}

// `sessions plan` counts heads, and others name some of them.
TEST(Flags, ACommandMayHaveAFlagOfItsOwnForAName) {
  Flags flags;
  const auto named = [](const std::string& name) {
    for (const Command& command : Commands()) {
      if (command.name == name) return command;
    }
    return Command();
  };
  EXPECT_EQ(FlagOf(named("sessions plan"), flags, "heads"), &flags.layer_heads);
  EXPECT_EQ(FlagOf(named("bias"), flags, "heads"), &flags.heads);
  EXPECT_EQ(FlagOf(named("sessions plan"), flags, "rows"), &flags.rows);
  EXPECT_EQ(FlagOf(named("sessions plan"), flags, "dance"), nullptr);
  for (const Flag* flag : flags.plan) {
    EXPECT_FALSE(flag->is_switch()) << "the line is read before it is known which command it is for";
    EXPECT_NE(flags.Find(flag->name()), nullptr) << flag->name();
  }
  EXPECT_THAT(HelpFor(named("sessions plan"), flags), HasSubstr("\n  --heads N               query heads of a layer"));
}

TEST(Flags, HelpKeepsToItsWidth) {
  const Flags flags;
  for (const Command& command : Commands()) {
    const std::string help = HelpFor(command, flags);
    for (const absl::string_view line : absl::StrSplit(help, '\n')) EXPECT_LE(line.size(), 120U) << line;
  }
}

TEST(Flags, ChoicesAreEnforced) {
  Flags flags;
  int with_choices = 0;
  for (const Flag* each : All(flags)) {
    Flag* const flag = flags.Find(each->name());
    const std::vector<std::string> choices = flag->choices();
    if (choices.empty()) continue;
    ++with_choices;
    for (const std::string& choice : choices) {
      EXPECT_TRUE(flag->Set(choice).ok()) << flag->name();
      EXPECT_THAT(flag->placeholder(), HasSubstr(choice));
    }
    const absl::Status refused = flag->Set("all");
    EXPECT_TRUE(IsUsageError(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(absl::StrCat("--", flag->name(), ": expected ", choices[0])));
  }
  EXPECT_EQ(with_choices, 7);
}

TEST(Flags, AChoiceIsAValueOrTheDefault) {
  Flags flags;
  EXPECT_EQ(flags.mask.value(), Mask::kOfTable);
  EXPECT_EQ(flags.mask.word(), "");
  ASSERT_TRUE(flags.mask.Set("none").ok());
  EXPECT_EQ(flags.mask.value(), Mask::kNone);
  EXPECT_EQ(flags.mask.word(), "none");
  EXPECT_EQ(flags.mask.Set("").message(), "--mask: expected causal or none, got an empty value");
  EXPECT_EQ(flags.mask.Set("all").message(), "--mask: expected causal or none, got \"all\"");
  EXPECT_EQ(flags.mask.value(), Mask::kNone);
  EXPECT_EQ(flags.format.word(), "text");
}

TEST(Flags, ABiasIsTheTablesOrNone) {
  Flags flags;
  EXPECT_EQ(flags.bias.value(), Bias::kOfTable);
  ASSERT_TRUE(flags.bias.Set("none").ok());
  EXPECT_EQ(flags.bias.value(), Bias::kNone);
  EXPECT_EQ(flags.bias.Set("model").message(), "--bias: expected none, got \"model\"");
}

TEST(Flags, ValuesAreParsedByType) {
  Flags flags;
  EXPECT_TRUE(flags.query_offsets.Set("-3,0,5").ok());
  EXPECT_THAT(flags.query_offsets.value(), ElementsAre(-3, 0, 5));
  EXPECT_TRUE(flags.scale.Set("0.125").ok());
  EXPECT_EQ(flags.scale.value(), 0.125F);
  EXPECT_TRUE(flags.timeout.Set("1m30s").ok());
  EXPECT_EQ(flags.timeout.value(), absl::Seconds(90));
  EXPECT_TRUE(flags.key_lengths.Set("3,1,2").ok());
  EXPECT_THAT(flags.key_lengths.value(), ElementsAre(3, 1, 2));
  EXPECT_EQ(flags.key_lengths.Set("3,x").message(),
            "--key_lengths: expected a whole number from 0 to 2147483647 for each sequence, as 5,3,8, got \"3,x\"");
  EXPECT_THAT(flags.key_lengths.value(), ElementsAre(3, 1, 2));
}

TEST(Flags, WhatIsNoValueIsRefusedAndChangesNothing) {
  const struct {
    const char* flag;
    const char* text;
    const char* expected;
  } kCases[] = {
      {"queries", "many", "a whole number from 1 to 2147483647"},
      {"queries", "1.5", "a whole number from 1 to 2147483647"},
      {"queries", "0", "a whole number from 1 to 2147483647"},
      {"queries", "99999999999999999999", "a whole number from 1 to 2147483647"},
      {"query_offset", "99999999999999999999", "a whole number"},
      {"head", "-1", "a whole number from 0 to 2147483647"},
      {"version", "-1", "a whole number of at least 0"},
      {"scale", "nan", "a finite number"},
      {"scale", "1e99", "a finite number"},
      {"tolerance", "nan", "a finite number of at least 0"},
      {"tolerance", "-1", "a finite number of at least 0"},
      {"tolerance", "inf", "a finite number of at least 0"},
      {"timeout", "5", "a duration with its unit (as 500ms, 10s or 1h30m) from 1ms to 8760h"},
      {"timeout", "-5s", "a duration with its unit (as 500ms, 10s or 1h30m) from 1ms to 8760h"},
      {"timeout", "inf", "a duration with its unit (as 500ms, 10s or 1h30m) from 1ms to 8760h"},
      {"retry_for", "-1s", "a duration with its unit (as 500ms, 10s or 1h30m) from 0 to 8760h"},
      {"json", "maybe", "true or false"},
      {"rows", "65537", "a whole number from 1 to 65536"},
      {"self_layers", "1025", "a whole number from 0 to 1024"},
      {"budget", "0", "a number of bytes such as 1048576, 512KiB, 256MiB or 1GiB"},
      {"budget", "-1GiB", "a number of bytes such as 1048576, 512KiB, 256MiB or 1GiB"},
  };
  for (const auto& c : kCases) {
    Flags flags;
    const absl::Status refused = flags.Find(c.flag)->Set(c.text);
    EXPECT_TRUE(IsUsageError(refused)) << c.flag << c.text;
    EXPECT_EQ(refused.message(), absl::StrCat("--", c.flag, ": expected ", c.expected, ", got \"", c.text, "\""));
    EXPECT_EQ(flags.queries.value(), 8);
    EXPECT_EQ(flags.timeout.value(), absl::Minutes(5));
    EXPECT_FALSE(flags.head.value().has_value());
  }
}

TEST(Flags, NoValueIsEmpty) {
  Flags flags;
  for (const Flag* flag : All(flags)) {
    const absl::Status refused = flags.Find(flag->name())->Set("");
    EXPECT_TRUE(IsUsageError(refused)) << flag->name();
    EXPECT_THAT(std::string(refused.message()), testing::EndsWith(", got an empty value")) << flag->name();
  }
}

TEST(Flags, ANumberWithoutItsUnitIsGivenOne) {
  Flags flags;
  EXPECT_EQ(AdviceOf(flags.timeout.Set("10")), "did you mean 10s?");
  EXPECT_EQ(AdviceOf(flags.timeout.Set("1.5")), "did you mean 1.5s?");
  EXPECT_EQ(AdviceOf(flags.timeout.Set("-10")), "without --timeout it is: 5m");
  EXPECT_EQ(AdviceOf(flags.mask.Set("cuasal")), "did you mean `--mask causal`?");
  for (const char* text : {"4g", "4G", "4GB", "4gb", "4 Gb", "4gib"}) {
    EXPECT_EQ(AdviceOf(flags.budget.Set(text)), "did you mean 4GiB?") << text;
  }
  EXPECT_EQ(AdviceOf(flags.budget.Set("512k")), "did you mean 512KiB?");
  for (const char* text : {"GiB", "4XB", "9999999999TB"}) {
    EXPECT_THAT(AdviceOf(flags.budget.Set(text)), testing::StartsWith("without --budget it is: ")) << text;
  }
}

TEST(Flags, WhatIsShownOfAValueIsPrintableAndShort) {
  Flags flags;
  const std::string message(flags.queries.Set("\x1b[31m" + std::string(1000, 'x')).message());
  EXPECT_THAT(message, HasSubstr("got \"\\x1b[31mxxx"));
  EXPECT_THAT(message, testing::EndsWith("x...\""));
  EXPECT_LT(message.size(), 200U);
}

}  // namespace
}  // namespace attnd::ctl
