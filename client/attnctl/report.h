// attnctl's exit codes and failure messages.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// Exit codes, for scripts. `attnctl --help` lists them.
enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kNotFound = 4 };

// Prints Message on standard error unless `status` is OK. Returns the exit code. `command` is that of the command line;
// null if it names none.
ExitCode Report(const absl::Status& status, const Command* command, const Flags& flags);

// Two lines: what went wrong, and what to do about it.
std::string Message(const absl::Status& status, const Command* command, const Flags& flags);

}  // namespace attnd::ctl
