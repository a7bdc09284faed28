#include "client/attnctl/line.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/commands.h"
#include "client/attnctl/mistakes.h"

namespace attnd::ctl {
namespace {

using Words = std::vector<std::string>;

// A flag given on the line; its value is not parsed yet.
struct Given {
  Flag* flag;
  std::string value;
};

// Finds the command at the front of `arguments` and removes its words. Only the first `before_dashes` arguments may be
// part of its name.
const Command* FindCommand(Words& arguments, std::size_t before_dashes) {
  const Command* found = nullptr;
  std::size_t length = 0;
  for (const Command& command : Commands()) {
    const Words words = absl::StrSplit(command.name, ' ');
    if (before_dashes < words.size() || !std::equal(words.begin(), words.end(), arguments.begin())) continue;
    if (words.size() <= length)
      continue;  // `bias compare` is not `bias` of a model "compare", which is `bias -- compare`
    found = &command;
    length = words.size();
  }
  arguments.erase(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(length));
  return found;
}

// The command that a line with invalid flags probably names, for messages.
const Command* CommandAmong(const Words& words) {
  for (auto from = words.begin(); from != words.end(); ++from) {
    Words rest;
    std::copy_if(from, words.end(), std::back_inserter(rest), [](const std::string& w) { return w[0] != '-'; });
    if (const Command* command = FindCommand(rest, rest.size())) return command;
  }
  return nullptr;
}

bool NamesFlag(const std::string& word, const Flags& flags) {
  return absl::StartsWith(word, "--") && flags.Find(absl::string_view(word).substr(2)) != nullptr;
}

// Reads `--name value` or `--name=value` at words[at], moving `at` to its last word.
absl::StatusOr<Given> ReadFlag(const Flags& flags, const Words& words, std::size_t& at) {
  const absl::string_view word = words[at];
  const std::pair<std::string, std::string> parts = absl::StrSplit(word.substr(2), absl::MaxSplits('=', 1));
  const bool has_value = absl::StrContains(word, '=');
  Flag* const flag = flags.Find(parts.first);
  if (flag == nullptr) return NoFlag("--" + parts.first, CommandAmong(words), flags);
  if (has_value) return Given{flag, parts.second};
  if (flag->is_switch()) return Given{flag, "true"};
  if (at + 1 < words.size() && !NamesFlag(words[at + 1], flags)) return Given{flag, words[++at]};
  const Command* const command = CommandAmong(words);
  return NoValue(command == nullptr ? *flag : *FlagOf(*command, flags, flag->name()),
                 at + 1 < words.size() ? words[at + 1] : "");
}

absl::Status SetFlag(const Command& command, const Given& given, const Flags& flags) {
  Flag& flag = *FlagOf(command, flags, given.flag->name());
  const Words choices = ChoicesOf(command, flag);
  if (!choices.empty() && std::count(choices.begin(), choices.end(), given.value) == 0) {
    return NotAChoice(flag, choices, given.value);
  }
  return flag.Set(given.value);
}

// A line's words separated into arguments and flags, before the command is known.
struct Sorted {
  bool help = false;
  Words arguments;
  std::size_t before_dashes = 0;  // arguments before `--`
  std::vector<Given> given;
};

absl::StatusOr<Sorted> Sort(const Words& words, const Flags& flags) {
  Sorted sorted;
  for (std::size_t at = 0; at < words.size(); ++at) {
    const std::string& word = words[at];
    if (word == "--") {
      sorted.arguments.insert(sorted.arguments.end(), words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
      break;
    }
    if (word == "--help" || word == "-h" || (word == "help" && at == 0)) {
      sorted.help = true;
    } else if (absl::StartsWith(word, "--")) {
      absl::StatusOr<Given> flag = ReadFlag(flags, words, at);
      if (!flag.ok()) return flag.status();
      sorted.given.push_back(*std::move(flag));
    } else if (word.size() > 1 && word[0] == '-') {
      return NoFlag(word, CommandAmong(words), flags);
    } else {
      sorted.arguments.push_back(word);
      ++sorted.before_dashes;
    }
  }
  return sorted;
}

// Help of a command, a group, or everything. Only --json and --format affect it.
absl::StatusOr<Line> HelpLine(Line line, const std::vector<Given>& given, const Flags& flags) {
  line.help = true;
  for (const Given& g : given) {
    if (g.flag != &flags.json && g.flag != &flags.format) continue;
    if (absl::Status s = g.flag->Set(g.value); !s.ok()) return s;
  }
  if (line.command != nullptr && !MeantSubcommand(*line.command, line.arguments).empty()) {
    return NoSubcommand(*line.command, line.arguments);
  }
  if (line.command != nullptr || line.arguments.empty()) return line;
  if (line.arguments.size() > 1 || !IsGroup(line.arguments[0])) return NoCommand(line.arguments);
  line.group = line.arguments[0];
  return line;
}

}  // namespace

absl::StatusOr<Line> ParseLine(const Words& words, Flags& flags) {
  Line line;
  line.version = words.size() == 1 && words[0] == "--version";
  if (line.version) return line;
  absl::StatusOr<Sorted> sorted = Sort(words, flags);
  if (!sorted.ok()) return sorted.status();
  line.arguments = std::move(sorted->arguments);
  line.command = FindCommand(line.arguments, sorted->before_dashes);
  if (sorted->help) return HelpLine(std::move(line), sorted->given, flags);
  if (line.command == nullptr) return NoCommand(line.arguments);
  const Command& command = *line.command;
  const bool mistyped = !MeantSubcommand(command, line.arguments).empty();
  for (const Given& given : sorted->given) {
    if (!Takes(command, flags, *given.flag)) {
      return mistyped ? NoSubcommand(command, line.arguments) : NotOfCommand(*given.flag, command, flags);
    }
    if (absl::Status s = SetFlag(command, given, flags); !s.ok()) return s;
  }
  if (!TakesArguments(command, line.arguments.size())) {
    return mistyped ? NoSubcommand(command, line.arguments) : WrongArguments(command, line.arguments);
  }
  return line;
}

}  // namespace attnd::ctl
