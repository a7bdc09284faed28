#include "client/attnctl/mistakes.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/attnctl/commands.h"
#include "client/attnctl/suggest.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using Words = std::vector<std::string>;

// The second words of the commands of a group.
Words Subcommands(const std::string& group) {
  Words words;
  for (const Command& command : Commands()) {
    const absl::string_view name = command.name;
    if (absl::StartsWith(name, absl::StrCat(group, " "))) words.emplace_back(name.substr(group.size() + 1));
  }
  return words;
}

// The commands that `arguments` probably mean.
Words MeantCommands(const Words& arguments) {
  Words of_one, of_two, groups;
  for (const Command& command : Commands()) {
    const Words parts = absl::StrSplit(command.name, ' ');
    (parts.size() == 1 ? of_one : of_two).push_back(command.name);
    if (parts.size() == 2) groups.push_back(parts[0]);
  }
  if (arguments.size() > 1) {
    // If the first word is a group, only the second one is mistyped.
    const bool of_group = IsGroup(arguments[0]);
    const std::string second = of_group ? Nearest(arguments[1], Subcommands(arguments[0])) : "";
    if (!second.empty()) return {absl::StrCat(arguments[0], " ", second)};
    const std::string pair = of_group ? "" : Nearest(absl::StrCat(arguments[0], " ", arguments[1]), of_two);
    if (!pair.empty()) return {pair};
    const std::string swapped = Nearest(absl::StrCat(arguments[1], " ", arguments[0]), of_two);
    if (!swapped.empty()) return {swapped};
    // A group and no word near one of its commands: another message lists its commands.
    if (of_group) return {};
  }
  Words ending;
  for (const std::string& command : of_two) {
    if (absl::EndsWith(command, absl::StrCat(" ", arguments[0]))) ending.push_back(command);
  }
  if (!ending.empty()) return ending;
  Words all = of_one;
  all.insert(all.end(), groups.begin(), groups.end());
  const std::string meant = Nearest(arguments[0], all);
  return meant.empty() ? Words() : Words{meant};
}

// "did you mean `attnctl models list` or `attnctl sessions list`? "; "" if `commands` is empty.
std::string DidYouMean(Words commands) {
  for (std::string& command : commands) command = absl::StrCat("`attnctl ", command, "`");
  return commands.empty() ? "" : absl::StrCat("did you mean ", Or(commands), "? ");
}

// "`attnctl attend` and `attnctl bias`".
std::string TakenBy(const Flag& flag, const Flags& flags) {
  Words names;
  for (const Command& command : Commands()) {
    if (Takes(command, flags, flag)) names.push_back(absl::StrCat("`attnctl ", command.name, "`"));
  }
  const std::string last = names.back();
  names.pop_back();
  return names.empty() ? last : absl::StrCat(absl::StrJoin(names, ", "), " and ", last);
}

}  // namespace

bool IsGroup(const std::string& word) { return !Subcommands(word).empty(); }

std::string SeeHelp(const Command* command) {
  return command == nullptr ? "`attnctl --help` lists the commands"
                            : absl::StrCat("`attnctl ", command->name, " --help` describes it");
}

absl::Status NoCommand(const Words& arguments) {
  if (arguments.empty()) return UsageError("expected a command, got none", SeeHelp(nullptr));
  const std::string& first = arguments[0];
  if (arguments.size() == 1 && IsGroup(first)) {
    return UsageError(absl::StrCat("`attnctl ", first, "` needs a command: ", Or(Subcommands(first))),
                      absl::StrCat("`attnctl ", first, " ", Subcommands(first)[0], "`, for one; ", SeeHelp(nullptr)));
  }
  const bool of_group = IsGroup(first);
  const std::string said = of_group ? absl::StrCat(first, " ", arguments[1]) : first;
  std::string advice = DidYouMean(MeantCommands(arguments));
  if (advice.empty() && of_group) {
    advice = absl::StrCat("`attnctl ", first, "` takes ", Or(Subcommands(first)), "; ");
  }
  return UsageError(absl::StrCat("there is no command ", Shown(said)), absl::StrCat(advice, SeeHelp(nullptr)));
}

std::string MeantSubcommand(const Command& command, const Words& arguments) {
  const std::string meant = arguments.empty() ? "" : Nearest(arguments[0], Subcommands(command.name));
  return meant.empty() ? "" : absl::StrCat(command.name, " ", meant);
}

absl::Status NoSubcommand(const Command& command, const Words& arguments) {
  return UsageError(absl::StrCat("there is no command ", Shown(absl::StrCat(command.name, " ", arguments[0]))),
                    absl::StrCat(DidYouMean({MeantSubcommand(command, arguments)}), SeeHelp(nullptr)));
}

absl::Status OrSubcommand(absl::Status status, const Command& command, const Words& arguments) {
  const std::string meant = absl::IsNotFound(status) ? MeantSubcommand(command, arguments) : "";
  if (meant.empty()) return status;
  return WithAdvice(std::move(status), absl::StrCat(DidYouMean({meant}), "`attnctl models list` shows what is loaded"));
}

absl::Status NoFlag(const std::string& word, const Command* command, const Flags& flags) {
  Words names;
  const auto add = [&names](const Flag* flag) { names.push_back(absl::StrCat("--", flag->name())); };
  for (const Flag* flag : flags.common) add(flag);
  for (const Flag* flag : flags.own) {
    if (command == nullptr || Takes(*command, flags, *flag)) add(flag);
  }
  names.insert(names.end(), {"--help", "--version"});
  // Dashes are ignored: `-queries` is near `--queries`, and `-v` is near nothing.
  Words bare;
  for (const std::string& name : names) bare.push_back(name.substr(2));
  const absl::string_view without = absl::StripPrefix(absl::StripPrefix(word, "-"), "-");
  const std::string meant = Nearest(without, bare);
  return UsageError(
      absl::StrCat("there is no flag ", Shown(word)),
      absl::StrCat(meant.empty() ? "" : absl::StrCat("did you mean `--", meant, "`? "), SeeHelp(command)));
}

absl::Status NotOfCommand(const Flag& flag, const Command& command, const Flags& flags) {
  return UsageError(absl::StrCat("`attnctl ", command.name, "` takes no --", flag.name()),
                    absl::StrCat("leave it out (it is for ", TakenBy(flag, flags), "); ", SeeHelp(&command)));
}

absl::Status NoValue(const Flag& flag, const std::string& next) {
  if (next.empty()) {
    return UsageError(absl::StrCat("--", flag.name(), " needs a value"),
                      absl::StrCat("write `--", flag.name(), " ", flag.placeholder(), "`: ", flag.help()));
  }
  return UsageError(absl::StrCat("--", flag.name(), " needs a value, got the flag ", next),
                    absl::StrCat("write `--", flag.name(), " ", flag.placeholder(), "`, or `--", flag.name(), "=", next,
                                 "` if that is the value"));
}

absl::Status WrongArguments(const Command& command, const Words& arguments) {
  const Words wanted = ArgumentsOf(command);
  const std::string usage = absl::StrCat("`attnctl ", command.name, wanted.empty() ? "" : " ", command.arguments, "`");
  const std::string advice = absl::StrCat("write ", usage, "; ", SeeHelp(&command));
  if (arguments.size() > wanted.size()) {
    return UsageError(absl::StrCat("`attnctl ", command.name, "` does not take ", Shown(arguments[wanted.size()])),
                      advice);
  }
  const Words missing(wanted.begin() + static_cast<std::ptrdiff_t>(arguments.size()), wanted.end());
  return UsageError(absl::StrCat("`attnctl ", command.name, "` needs ", absl::StrJoin(missing, " and ")), advice);
}

}  // namespace attnd::ctl
