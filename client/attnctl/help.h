// What --help and --version print.
#pragma once

#include <string>

#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/line.h"

namespace attnd::ctl {

// What --version prints.
std::string VersionText();

// Help for a line that asks for it, with --json (or --format json) as HelpJson.
std::string Help(const Line& line, const Flags& flags);

// The commands, the flags that all of them take, and the exit codes.
std::string GeneralHelp(const Flags& flags);

// One command and its flags.
std::string HelpFor(const Command& command, const Flags& flags);

// All commands with their arguments and flags, for programs.
std::string HelpJson(const Flags& flags);

// Exit codes, a line each.
std::string ExitCodeHelp();

}  // namespace attnd::ctl
