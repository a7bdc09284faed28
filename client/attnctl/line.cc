#include <algorithm>
#include <map>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {
namespace {

// What every command that calls a server takes.
constexpr const char* kCommonFlags[] = {"server", "timeout"};

bool Takes(const Command& command, absl::string_view flag) {
  const auto is = [flag](const char* name) { return flag == name; };
  return std::any_of(std::begin(kCommonFlags), std::end(kCommonFlags), is) ||
         std::any_of(command.flags.begin(), command.flags.end(), is);
}

// One flag as it stood on the line, its value not yet parsed.
struct Given {
  std::string name;
  absl::CommandLineFlag* flag;
  std::string value;
};

// Reads `--name value` or `--name=value` at argv[at], moving `at` to its last word.
absl::StatusOr<Given> ReadFlag(const std::vector<std::string>& words, std::size_t& at) {
  const absl::string_view word = words[at];
  const std::pair<std::string, std::string> parts = absl::StrSplit(word.substr(2), absl::MaxSplits('=', 1));
  const bool has_value = absl::StrContains(word, '=');
  absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(parts.first);
  if (flag == nullptr) return UsageError(absl::StrCat("there is no flag --", parts.first));
  if (has_value) return Given{parts.first, flag, parts.second};
  if (flag->IsOfType<bool>()) return Given{parts.first, flag, "true"};
  if (at + 1 == words.size()) return UsageError(absl::StrCat("--", parts.first, " needs a value"));
  return Given{parts.first, flag, words[++at]};
}

// Takes the words of a command's name off the front of `arguments`.
const Command* FindCommand(std::vector<std::string>& arguments) {
  for (const Command& command : Commands()) {
    const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
    if (arguments.size() < words.size() || !std::equal(words.begin(), words.end(), arguments.begin())) continue;
    arguments.erase(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(words.size()));
    return &command;
  }
  return nullptr;
}

absl::Status SetFlags(const Command& command, const std::vector<Given>& given) {
  for (const Given& g : given) {
    if (!Takes(command, g.name)) {
      return UsageError(absl::StrCat("`attnctl ", command.name, "` takes no --", g.name));
    }
    std::string error;
    if (!g.flag->ParseFrom(g.value, &error)) {
      return UsageError(
          absl::StrCat("--", g.name, ": cannot understand \"", g.value, "\"", error.empty() ? "" : ": ", error));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckArguments(const Line& line) {
  const Command& command = *line.command;
  if (line.arguments.size() >= command.fewest && line.arguments.size() <= command.most) return absl::OkStatus();
  if (line.arguments.size() > command.most) {
    return UsageError(
        absl::StrCat("`attnctl ", command.name, "` does not take \"", line.arguments[command.most], "\""));
  }
  return UsageError(absl::StrCat("`attnctl ", command.name, "` needs ", command.arguments));
}

// "  --name META    text", the text wrapped at 100 columns.
std::string FlagHelp(const char* name) {
  const absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
  const std::string help = flag->Help();
  const std::vector<std::string> parts = absl::StrSplit(help, absl::MaxSplits(": ", 1));
  const bool plain = flag->IsOfType<bool>();
  const std::string left = plain ? absl::StrCat("--", name) : absl::StrCat("--", name, " ", parts[0]);
  std::string text = absl::StrFormat("  %-24s", left);
  if (left.size() > 23) absl::StrAppend(&text, "\n", std::string(26, ' '));
  std::size_t column = 26;
  for (const absl::string_view word : absl::StrSplit(plain ? help : parts[1], ' ')) {
    if (column + word.size() + 1 > 100) {
      absl::StrAppend(&text, "\n", std::string(26, ' '));
      column = 26;
    }
    absl::StrAppend(&text, column == 26 ? "" : " ", word);
    column += word.size() + 1;
  }
  return text + "\n";
}

}  // namespace

absl::StatusOr<Line> ParseLine(int argc, char** argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  Line line;
  std::vector<Given> given;
  for (std::size_t at = 0; at < words.size(); ++at) {
    const std::string& word = words[at];
    if (word == "--") {
      line.arguments.insert(line.arguments.end(), words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
      break;
    }
    if (word == "--help" || word == "-h" || (word == "help" && at == 0)) {
      line.help = true;
    } else if (absl::StartsWith(word, "--")) {
      absl::StatusOr<Given> flag = ReadFlag(words, at);
      if (!flag.ok()) return flag.status();
      given.push_back(*std::move(flag));
    } else if (word.size() > 1 && word[0] == '-') {
      return UsageError(absl::StrCat("there is no flag ", word));
    } else {
      line.arguments.push_back(word);
    }
  }
  line.command = FindCommand(line.arguments);
  if (line.help) return line;
  if (line.command == nullptr) {
    return UsageError(line.arguments.empty()
                          ? "what is to be done?"
                          : absl::StrCat("there is no command \"", absl::StrJoin(line.arguments, " "), "\""));
  }
  if (absl::Status s = SetFlags(*line.command, given); !s.ok()) return s;
  if (absl::Status s = CheckArguments(line); !s.ok()) return s;
  return line;
}

std::string GeneralHelp() {
  std::string text =
      "attnctl: talks to an attnd server, which computes attention with learned relative-position biases.\n\n"
      "Usage: attnctl COMMAND [ARGUMENTS] [--flag value ...]\n\nCommands:\n";
  for (const Command& command : Commands()) {
    absl::StrAppendFormat(&text, "  %-27s%s\n", absl::StrCat(command.name, " ", command.arguments), command.summary);
  }
  absl::StrAppend(&text, "\nEvery command:\n");
  for (const char* flag : kCommonFlags) absl::StrAppend(&text, FlagHelp(flag));
  absl::StrAppend(
      &text,
      "\nExit codes: 0 done; 1 refused or failed; 2 the command line makes no sense; 3 the server cannot be "
      "reached;\n4 no such model, table or file.\n\n`attnctl COMMAND --help` says more.\n");
  return text;
}

std::string HelpFor(const Command& command) {
  std::string text = absl::StrCat("attnctl ", command.name, ": ", command.summary, "\n\nUsage: attnctl ", command.name,
                                  *command.arguments == '\0' ? "" : " ", command.arguments, " [--flag value ...]\n");
  if (*command.details != '\0') absl::StrAppend(&text, "\n", command.details, "\n");
  absl::StrAppend(&text, "\nFlags (defaults in parentheses):\n");
  for (const char* flag : command.flags) absl::StrAppend(&text, FlagHelp(flag));
  for (const char* flag : kCommonFlags) absl::StrAppend(&text, FlagHelp(flag));
  return text;
}

}  // namespace attnd::ctl
