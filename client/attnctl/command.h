// What a command is: how it is called, what its help says, and what it does.
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
  std::string name;                // one or two words: "models load"
  std::string arguments;           // a word for each: "MODEL PATH"; "SOURCE..." is one or more; empty if it takes none
  std::string summary;             // one line
  std::string details;             // paragraphs and examples for --help; may be empty
  std::vector<std::string> flags;  // those of Flags::own that it takes, in the order of its help
  // `arguments` has an element for each word of the command's own. Errors become the exit code (report.h).
  absl::Status (*run)(const Flags& flags, const std::vector<std::string>& arguments);
  // The message of attnd.v1 that it sends, whose fields errors are about (field_words.h); empty if they are about none.
  std::string request = {};
  // Flags of which it takes fewer choices than there are.
  std::map<std::string, std::vector<std::string>> narrowed = {};
  // Flags that it takes instead of those of the same names in Flags::own; null: there are none.
  FlagList Flags::*instead = nullptr;
  // What to write where no server can be reached; empty if there is nothing.
  std::string offline = {};
};

// The flag that the command knows by this name; null if there is no such flag at all.
Flag* FlagOf(const Command& command, const Flags& flags, absl::string_view name);

// The words of the command's arguments.
std::vector<std::string> ArgumentsOf(const Command& command);

// Whether it takes this many arguments.
bool TakesArguments(const Command& command, std::size_t count);

// Whether it is a flag of the command, or of all commands.
bool Takes(const Command& command, const Flags& flags, const Flag& flag);

// The choices of a flag that the command takes; empty if any value may be one.
std::vector<std::string> ChoicesOf(const Command& command, const Flag& flag);

// ChoicesOf with bars between them, or the flag's placeholder.
std::string PlaceholderOf(const Command& command, const Flag& flag);

// Of `narrowed`: the forms of a command that prints text or JSON.
inline const std::map<std::string, std::vector<std::string>>& TextOrJson() {
  static const auto* const forms = new std::map<std::string, std::vector<std::string>>{{"format", {"text", "json"}}};
  return *forms;
}

}  // namespace attnd::ctl
