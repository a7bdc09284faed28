// The output of --help and --version.
#pragma once

#include <string>

#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/line.h"

namespace attnd::ctl {

// The output of --version.
std::string VersionText();

// The help that a command line asks for; with --json or --format json, HelpJson.
std::string Help(const Line& line, const Flags& flags);

// All commands, the flags common to them, and the exit codes.
std::string GeneralHelp(const Flags& flags);

// One command and its flags.
std::string HelpFor(const Command& command, const Flags& flags);

// All commands with their arguments and flags, as JSON.
std::string HelpJson(const Flags& flags);

// The exit codes, one on each line.
std::string ExitCodeHelp();

}  // namespace attnd::ctl
