// Errors of the command line, and advice for errors.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::ctl {

// The error of an invalid command line: INVALID_ARGUMENT, which ends attnctl with exit code kUsage. `advice` says what
// to write instead; it may be empty.
absl::Status UsageError(const std::string& message, const std::string& advice = "");

bool IsUsageError(const absl::Status& status);

// The same error with advice added. OK stays OK.
absl::Status WithAdvice(absl::Status status, const std::string& advice);

// The advice given to UsageError or WithAdvice; empty if there is none.
std::string AdviceOf(const absl::Status& status);

// `text` in quotes, printable and not too long, or "an empty value".
std::string Shown(const std::string& text);

}  // namespace attnd::ctl
