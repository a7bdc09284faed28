#include "client/attnctl/help.h"

#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/attnctl/commands.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

// " --name VALUE text", with the text wrapped at 100 columns.
std::string FlagHelp(const Flag& flag, const std::string& placeholder) {
  const std::string left = absl::StrCat("--", flag.name(), flag.is_switch() ? "" : " ", placeholder);
  std::string help = flag.help();
  if (!flag.default_words().empty()) absl::StrAppend(&help, " (", flag.default_words(), ")");
  std::string text = absl::StrFormat("  %-24s", left);
  if (left.size() > 23) absl::StrAppend(&text, "\n", std::string(26, ' '));
  std::size_t column = 26;
  for (const absl::string_view word : absl::StrSplit(help, ' ')) {
    if (column + word.size() + 1 > 100) {
      absl::StrAppend(&text, "\n", std::string(26, ' '));
      column = 26;
    }
    absl::StrAppend(&text, column == 26 ? "" : " ", word);
    column += word.size() + 1;
  }
  return text + "\n";
}

// Commands whose names begin with `start`.
std::string CommandList(const std::string& start) {
  std::string text = "\nCommands:\n";
  for (const Command& command : Commands()) {
    if (!absl::StartsWith(command.name, start)) continue;
    absl::StrAppendFormat(&text, "  %-27s%s\n", absl::StrCat(command.name, " ", command.arguments), command.summary);
  }
  return text;
}

std::string GroupHelp(const std::string& group) {
  return absl::StrCat("Usage: attnctl ", group, " COMMAND [ARGUMENTS] [--flag value ...]\n", CommandList(group + " "),
                      "\n`attnctl ", group, " COMMAND --help` says more.\n");
}

nlohmann::ordered_json ToJson(const Command& command, const Flag& flag) {
  nlohmann::ordered_json json = {{"name", flag.name()},
                                 {"value", PlaceholderOf(command, flag)},
                                 {"help", flag.help()},
                                 {"default", flag.default_words()}};
  if (const auto choices = ChoicesOf(command, flag); !choices.empty()) json["choices"] = choices;
  return json;
}

}  // namespace

std::string VersionText() { return "attnctl " ATTND_VERSION "\n"; }

std::string ExitCodeHelp() {
  return "0  done\n"
         "1  refused or failed\n"
         "2  the command line makes no sense\n"
         "3  the server cannot be reached, or is stopping\n"
         "4  no such model, table, session or file\n";
}

std::string GeneralHelp(const Flags& flags) {
  std::string text = absl::StrCat(
      "attnctl: talks to an attnd server, which computes attention with learned relative-position biases.\n\n"
      "Usage: attnctl COMMAND [ARGUMENTS] [--flag value ...]\n",
      CommandList(""), "\nEvery command:\n");
  for (const Flag* flag : flags.common) absl::StrAppend(&text, FlagHelp(*flag, flag->placeholder()));
  absl::StrAppend(&text,
                  "\nOf a flag that is given twice the last value counts. What goes wrong is said on standard error.\n",
                  "\nExit codes:\n");
  for (const absl::string_view line : absl::StrSplit(ExitCodeHelp(), '\n', absl::SkipEmpty())) {
    absl::StrAppend(&text, "  ", line, "\n");
  }
  return text + "\n`attnctl COMMAND --help` says more, `attnctl --version` which one this is.\n";
}

std::string HelpFor(const Command& command, const Flags& flags) {
  std::string text = absl::StrCat("attnctl ", command.name, ": ", command.summary, "\n\nUsage: attnctl ", command.name,
                                  command.arguments.empty() ? "" : " ", command.arguments, " [--flag value ...]\n");
  if (!command.details.empty()) absl::StrAppend(&text, "\n", command.details, "\n");
  absl::StrAppend(&text, "\nFlags (defaults in parentheses):\n");
  for (const std::string& name : command.flags) {
    const Flag& flag = *FlagOf(command, flags, name);
    absl::StrAppend(&text, FlagHelp(flag, PlaceholderOf(command, flag)));
  }
  for (const Flag* flag : flags.common) absl::StrAppend(&text, FlagHelp(*flag, flag->placeholder()));
  return text;
}

std::string HelpJson(const Flags& flags) {
  auto commands = nlohmann::ordered_json::array();
  for (const Command& command : Commands()) {
    nlohmann::ordered_json json = {
        {"name", command.name}, {"arguments", ArgumentsOf(command)}, {"summary", command.summary}};
    json["flags"] = nlohmann::ordered_json::array();
    for (const std::string& name : command.flags)
      json["flags"].push_back(ToJson(command, *FlagOf(command, flags, name)));
    for (const Flag* flag : flags.common) json["flags"].push_back(ToJson(command, *flag));
    commands.push_back(std::move(json));
  }
  return nlohmann::ordered_json{{"version", ATTND_VERSION}, {"commands", std::move(commands)}}.dump(2) + "\n";
}

std::string Help(const Line& line, const Flags& flags) {
  if (flags.WantsJson()) return HelpJson(flags);
  if (line.command != nullptr) return HelpFor(*line.command, flags);
  return line.group.empty() ? GeneralHelp(flags) : GroupHelp(line.group);
}

}  // namespace attnd::ctl
