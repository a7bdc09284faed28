// Completion of attnctl's command line in shells, made from the tables of commands and flags.
#pragma once

#include <string>
#include <vector>

#include "client/attnctl/flags.h"

namespace attnd::ctl {

// Shells that there is a script for.
const std::vector<std::string>& CompletedShells();

// The script for one of them. It completes commands, flags, choices and names of files, and names of models and
// numbers of sessions from the server that attnctl would call, for which it waits a second at most.
std::string CompletionScript(const std::string& shell, const Flags& flags);

}  // namespace attnd::ctl
