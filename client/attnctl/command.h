// A command: its name and arguments, its help, and its function.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

struct Command {
  std::string name;       // one or two words: "models load"
  std::string arguments;  // one word for each: "MODEL PATH"; "SOURCE..." means one or more; empty if it takes none
  std::string summary;    // one line
  std::string details;    // paragraphs and examples for --help; may be empty
  std::vector<std::string> flags;  // those of Flags::own that it takes, in the order of its help
  // `arguments` has an element for each argument. Errors become the exit code (report.h).
  absl::Status (*run)(const Flags& flags, const std::vector<std::string>& arguments);
  // The attnd.v1 message that it sends; errors name fields of that message (field_words.h). Empty if errors name no
  // fields.
  std::string request = {};
  // For flags of which it accepts only some choices: those choices.
  std::map<std::string, std::vector<std::string>> narrowed = {};
  // The list of flags that replace those of the same names in Flags::own; null if there is none.
  FlagList Flags::*instead = nullptr;
  // Advice for when no server can be reached: what to write instead; empty if there is none.
  std::string offline = {};
};

// The command's flag with this name; null if no such flag exists.
Flag* FlagOf(const Command& command, const Flags& flags, absl::string_view name);

// The words of Command::arguments.
std::vector<std::string> ArgumentsOf(const Command& command);

// Whether the command takes this many arguments.
bool TakesArguments(const Command& command, std::size_t count);

// Whether `flag` belongs to the command or to all commands.
bool Takes(const Command& command, const Flags& flags, const Flag& flag);

// The choices of a flag that the command accepts; empty if it accepts any value.
std::vector<std::string> ChoicesOf(const Command& command, const Flag& flag);

// ChoicesOf separated by bars, or the flag's placeholder if there are none.
std::string PlaceholderOf(const Command& command, const Flag& flag);

// For Command::narrowed: a command that prints text or JSON.
inline const std::map<std::string, std::vector<std::string>>& TextOrJson() {
  static const auto* const forms = new std::map<std::string, std::vector<std::string>>{{"format", {"text", "json"}}};
  return *forms;
}

}  // namespace attnd::ctl
