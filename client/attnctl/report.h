// How attnctl ends: its exit code, and what it says about a failure.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// Exit codes, for scripts. `attnctl --help` lists them.
enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kNotFound = 4 };

// Says on standard error what went wrong, in a first line, and what to do about it, in a second. `command` is that of
// the command line; null if it names none.
ExitCode Report(const absl::Status& status, const Command* command, const Flags& flags);

// The two lines.
std::string Message(const absl::Status& status, const Command* command, const Flags& flags);

}  // namespace attnd::ctl
