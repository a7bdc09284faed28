// Errors for command lines with an unknown command, an unknown flag, or a missing value. All functions that return a
// status return UsageErrors.
#pragma once

#include <string>
#include <vector>

#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// `arguments` do not begin with a command's name. They may be empty.
absl::Status NoCommand(const std::vector<std::string>& arguments);

// The command of a group ("bias compare") that the first of `arguments` ("compaer") probably means; "" if there is none
// or `command` ("bias") is not a group. The word may still be an argument: a model's name.
std::string MeantSubcommand(const Command& command, const std::vector<std::string>& arguments);

// The error that suggests MeantSubcommand, for a line that is invalid otherwise.
absl::Status NoSubcommand(const Command& command, const std::vector<std::string>& arguments);

// Adds the same suggestion to a NOT_FOUND from running `command`.
absl::Status OrSubcommand(absl::Status status, const Command& command, const std::vector<std::string>& arguments);

// `word` begins with a dash and is not a flag. `command` is null if the line names none.
absl::Status NoFlag(const std::string& word, const Command* command, const Flags& flags);

// `flag` belongs to other commands.
absl::Status NotOfCommand(const Flag& flag, const Command& command, const Flags& flags);

// `flag` is followed by nothing or by `next`, which is a flag.
absl::Status NoValue(const Flag& flag, const std::string& next);

// More or fewer arguments than the command takes.
absl::Status WrongArguments(const Command& command, const std::vector<std::string>& arguments);

// Whether `word` is the first of two words of a command's name.
bool IsGroup(const std::string& word);

// Refers to `attnctl bias --help` or `attnctl --help`.
std::string SeeHelp(const Command* command);

}  // namespace attnd::ctl
