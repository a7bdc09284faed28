// Shell completion of attnctl's command line, generated from the tables of commands and flags.
#pragma once

#include <string>
#include <vector>

#include "client/attnctl/flags.h"

namespace attnd::ctl {

// The shells for which there is a script.
const std::vector<std::string>& CompletedShells();

// The script for one of them. It completes commands, flags, choices, file names, and names of models and numbers of
// sessions. It gets these from the server that attnctl would call, and waits for at most a second.
std::string CompletionScript(const std::string& shell, const Flags& flags);

}  // namespace attnd::ctl
