// How attnctl ends: its exit code, and what it says about a failure.
#pragma once

#include "absl/status/status.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// Exit codes, for scripts. `attnctl --help` lists them.
enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kNotFound = 4 };

// Says on standard error what went wrong and what to do about it.
ExitCode Report(const absl::Status& status, const Flags& flags);

}  // namespace attnd::ctl
