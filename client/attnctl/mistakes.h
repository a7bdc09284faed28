// What is said of a command line that names no command, no flag of it, or no value. All return UsageErrors.
#pragma once

#include <string>
#include <vector>

#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// `arguments` begin with no command's name, and may be empty.
absl::Status NoCommand(const std::vector<std::string>& arguments);

// The command of a group ("bias compare") that the first of `arguments` ("compaer") was perhaps meant to name; "" if
// none, and if `command` ("bias") is no group. It may be an argument all the same: a model's name.
std::string MeantSubcommand(const Command& command, const std::vector<std::string>& arguments);

// Says so, of a line that makes no sense otherwise.
absl::Status NoSubcommand(const Command& command, const std::vector<std::string>& arguments);

// Says so too, of a NOT_FOUND that running `command` gave.
absl::Status OrSubcommand(absl::Status status, const Command& command, const std::vector<std::string>& arguments);

// `word` begins with a dash and names no flag. `command` is null if the line names none.
absl::Status NoFlag(const std::string& word, const Command* command, const Flags& flags);

// `flag` is one of other commands.
absl::Status NotOfCommand(const Flag& flag, const Command& command, const Flags& flags);

// Nothing stands behind `flag`, or `next` does, which is a flag.
absl::Status NoValue(const Flag& flag, const std::string& next);

// More or fewer arguments than the command takes.
absl::Status WrongArguments(const Command& command, const std::vector<std::string>& arguments);

// Whether some commands' names are this word and another.
bool IsGroup(const std::string& word);

// `attnctl bias --help`, in words: where it is described.
std::string SeeHelp(const Command* command);

}  // namespace attnd::ctl
