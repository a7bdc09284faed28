#include "client/attnctl/manual.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/attnctl/commands.h"
#include "client/attnctl/help.h"

namespace attnd::ctl {
namespace {

// Escapes a line's text, so that roff does not interpret it.
std::string Plain(absl::string_view text) {
  std::string plain = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}, {"`", "\\(ga"}, {"'", "\\(aq"}});
  return absl::StartsWith(plain, ".") ? absl::StrCat("\\&", plain) : plain;
}

std::string FlagEntry(const Command* command, const Flag& flag) {
  std::string text = absl::StrCat(".TP\n\\fB", Plain(absl::StrCat("--", flag.name())), "\\fR");
  const std::string placeholder = command == nullptr ? flag.placeholder() : PlaceholderOf(*command, flag);
  if (!flag.is_switch()) absl::StrAppend(&text, " \\fI", Plain(placeholder), "\\fR");
  absl::StrAppend(&text, "\n", Plain(flag.help()));
  if (!flag.default_words().empty()) absl::StrAppend(&text, " (", Plain(flag.default_words()), ")");
  return text + "\n";
}

// Paragraphs; lines that begin with two blanks are set verbatim.
std::string Details(const std::string& details) {
  std::string text;
  bool example = false;
  for (const absl::string_view line : absl::StrSplit(details, '\n')) {
    const bool indented = absl::StartsWith(line, "  ");
    if (indented != example) absl::StrAppend(&text, indented ? ".PP\n.nf\n" : ".fi\n");
    example = indented;
    // A blank line separates paragraphs; .PP does so before an example.
    if (!line.empty()) absl::StrAppend(&text, Plain(line), "\n");
  }
  return absl::StrCat(text, example ? ".fi\n" : "");
}

std::string Section(const Command& command, const Flags& flags) {
  std::string text = absl::StrCat(".SS \"attnctl ", command.name, command.arguments.empty() ? "" : " ",
                                  Plain(command.arguments), "\"\n", Plain(command.summary), ".\n");
  if (!command.details.empty()) absl::StrAppend(&text, ".PP\n", Details(command.details));
  for (const std::string& name : command.flags)
    absl::StrAppend(&text, FlagEntry(&command, *FlagOf(command, flags, name)));
  return text;
}

}  // namespace

std::string ManualPage(const Flags& flags) {
  std::string text =
      ".TH ATTNCTL 1 \"\" \"attnd " ATTND_VERSION
      "\" \"User Commands\"\n"
      ".SH NAME\nattnctl \\- talk to an attnd server, which computes attention with relative\\-position biases\n"
      ".SH SYNOPSIS\n\\fBattnctl\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR] [\\fB\\-\\-flag\\fR \\fIvalue\\fR ...]\n"
      ".SH DESCRIPTION\nFlags stand before, between or after arguments; of one that is given twice the last value "
      "counts.\nWhat holds without a flag is in parentheses.\n.SH COMMANDS\n";
  for (const Command& command : Commands()) absl::StrAppend(&text, Section(command, flags));
  absl::StrAppend(&text, ".SH \"FLAGS OF EVERY COMMAND\"\n");
  for (const Flag* flag : flags.common) absl::StrAppend(&text, FlagEntry(nullptr, *flag));
  absl::StrAppend(&text, ".SH \"EXIT STATUS\"\n");
  for (const absl::string_view line : absl::StrSplit(ExitCodeHelp(), '\n', absl::SkipEmpty())) {
    absl::StrAppend(&text, ".TP\n.B ", line.substr(0, 1), "\n", Plain(line.substr(3)), "\n");
  }
  return absl::StrCat(text,
                      ".SH ENVIRONMENT\n.TP\n.B ATTND_SERVER\nthe server that is called without \\fB\\-\\-server\\fR\n"
                      ".TP\n.B NO_COLOR\nif set, nothing is coloured\n");
}

}  // namespace attnd::ctl
