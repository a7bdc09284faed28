// What --help and --version print.
#pragma once

#include <string>

#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// What --version prints.
std::string VersionText();

// The commands, the flags that all of them take, and the exit codes.
std::string GeneralHelp(const Flags& flags);

// One command and its flags.
std::string HelpFor(const Command& command, const Flags& flags);

}  // namespace attnd::ctl
