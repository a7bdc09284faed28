#include "client/attnctl/line.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/commands.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

bool Takes(const Command& command, const Flags& flags, const Flag* flag) {
  return std::count(flags.common.begin(), flags.common.end(), flag) > 0 ||
         std::count(command.flags.begin(), command.flags.end(), flag->name()) > 0;
}

// One flag as it stood on the line, its value not yet parsed.
struct Given {
  Flag* flag;
  std::string value;
};

// Reads `--name value` or `--name=value` at words[at], moving `at` to its last word.
absl::StatusOr<Given> ReadFlag(const Flags& flags, const std::vector<std::string>& words, std::size_t& at) {
  const absl::string_view word = words[at];
  const std::pair<std::string, std::string> parts = absl::StrSplit(word.substr(2), absl::MaxSplits('=', 1));
  const bool has_value = absl::StrContains(word, '=');
  Flag* const flag = flags.Find(parts.first);
  if (flag == nullptr) return UsageError(absl::StrCat("there is no flag --", parts.first));
  if (has_value) return Given{flag, parts.second};
  if (flag->is_switch()) return Given{flag, "true"};
  if (at + 1 == words.size()) return UsageError(absl::StrCat("--", parts.first, " needs a value"));
  return Given{flag, words[++at]};
}

// Takes the words of a command's name off the front of `arguments`, of which the first `before_dashes` may be such: the
// longest name that fits, so that "bias compare" is not `bias` of a model "compare", which is "bias -- compare".
const Command* FindCommand(std::vector<std::string>& arguments, std::size_t before_dashes) {
  const Command* found = nullptr;
  std::size_t longest = 0;
  for (const Command& command : Commands()) {
    const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
    if (words.size() <= longest || before_dashes < words.size()) continue;
    if (!std::equal(words.begin(), words.end(), arguments.begin())) continue;
    found = &command;
    longest = words.size();
  }
  arguments.erase(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(longest));
  return found;
}

absl::Status SetFlags(const Command& command, const Flags& flags, const std::vector<Given>& given) {
  for (const Given& g : given) {
    if (!Takes(command, flags, g.flag)) {
      return UsageError(absl::StrCat("`attnctl ", command.name, "` takes no --", g.flag->name()));
    }
    if (absl::Status s = g.flag->Set(g.value); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status CheckArguments(const Command& command, const std::vector<std::string>& arguments) {
  const std::vector<std::string> wanted = absl::StrSplit(command.arguments, ' ', absl::SkipEmpty());
  const bool more = absl::EndsWith(command.arguments, "...");  // the last one may be repeated
  if (arguments.size() == wanted.size() || (more && arguments.size() > wanted.size())) return absl::OkStatus();
  if (arguments.size() > wanted.size()) {
    return UsageError(absl::StrCat("`attnctl ", command.name, "` does not take \"", arguments[wanted.size()], "\""));
  }
  return UsageError(absl::StrCat("`attnctl ", command.name, "` needs ", command.arguments));
}

// A line's words apart, before it is known which command they are for.
struct Sorted {
  bool help = false;
  std::vector<std::string> arguments;
  std::size_t before_dashes = 0;  // arguments before `--`
  std::vector<Given> given;
};

absl::StatusOr<Sorted> Sort(const std::vector<std::string>& words, const Flags& flags) {
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
      return UsageError(absl::StrCat("there is no flag ", word));
    } else {
      sorted.arguments.push_back(word);
      ++sorted.before_dashes;
    }
  }
  return sorted;
}

}  // namespace

absl::StatusOr<Line> ParseLine(const std::vector<std::string>& words, Flags& flags) {
  Line line;
  line.version = words.size() == 1 && words[0] == "--version";
  if (line.version) return line;
  absl::StatusOr<Sorted> sorted = Sort(words, flags);
  if (!sorted.ok()) return sorted.status();
  line.help = sorted->help;
  line.arguments = std::move(sorted->arguments);
  line.command = FindCommand(line.arguments, sorted->before_dashes);
  if (line.help) return line;
  if (line.command == nullptr) {
    return UsageError(line.arguments.empty()
                          ? "what is to be done?"
                          : absl::StrCat("there is no command \"", absl::StrJoin(line.arguments, " "), "\""));
  }
  if (absl::Status s = SetFlags(*line.command, flags, sorted->given); !s.ok()) return s;
  if (absl::Status s = CheckArguments(*line.command, line.arguments); !s.ok()) return s;
  return line;
}

}  // namespace attnd::ctl
