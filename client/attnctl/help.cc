#include "client/attnctl/help.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/attnctl/commands.h"

namespace attnd::ctl {
namespace {

// "  --name VALUE    text", the text wrapped at 100 columns.
std::string FlagHelp(const Flag& flag) {
  const std::string left = absl::StrCat("--", flag.name(), flag.is_switch() ? "" : " ", flag.placeholder());
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

}  // namespace

std::string VersionText() { return "attnctl " ATTND_VERSION "\n"; }

std::string GeneralHelp(const Flags& flags) {
  std::string text =
      "attnctl: talks to an attnd server, which computes attention with learned relative-position biases.\n\n"
      "Usage: attnctl COMMAND [ARGUMENTS] [--flag value ...]\n\nCommands:\n";
  for (const Command& command : Commands()) {
    absl::StrAppendFormat(&text, "  %-27s%s\n", absl::StrCat(command.name, " ", command.arguments), command.summary);
  }
  absl::StrAppend(&text, "\nEvery command:\n");
  for (const Flag* flag : flags.common) absl::StrAppend(&text, FlagHelp(*flag));
  absl::StrAppend(
      &text,
      "\nExit codes: 0 done; 1 refused or failed; 2 the command line makes no sense; 3 the server cannot be "
      "reached;\n4 no such model, table or file.\n\n`attnctl COMMAND --help` says more, `attnctl --version` which one "
      "this is.\n");
  return text;
}

std::string HelpFor(const Command& command, const Flags& flags) {
  std::string text = absl::StrCat("attnctl ", command.name, ": ", command.summary, "\n\nUsage: attnctl ", command.name,
                                  command.arguments.empty() ? "" : " ", command.arguments, " [--flag value ...]\n");
  if (!command.details.empty()) absl::StrAppend(&text, "\n", command.details, "\n");
  absl::StrAppend(&text, "\nFlags (defaults in parentheses):\n");
  for (const std::string& name : command.flags) absl::StrAppend(&text, FlagHelp(*flags.Find(name)));
  for (const Flag* flag : flags.common) absl::StrAppend(&text, FlagHelp(*flag));
  return text;
}

}  // namespace attnd::ctl
