// Errors of the command line itself, and what to do about an error.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::ctl {

// A command line that cannot be meant: INVALID_ARGUMENT, which ends attnctl with exit code kUsage. `advice` says what
// to write instead; it may be empty.
absl::Status UsageError(const std::string& message, const std::string& advice = "");

bool IsUsageError(const absl::Status& status);

// The same error, with what to do about it. OK stays OK.
absl::Status WithAdvice(absl::Status status, const std::string& advice);

// What UsageError or WithAdvice was given; empty if there is none.
std::string AdviceOf(const absl::Status& status);

// `text` in quotes, printable and not too long, or "an empty value".
std::string Shown(const std::string& text);

}  // namespace attnd::ctl
