// Errors of the command line itself.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::ctl {

// A command line that cannot be meant: INVALID_ARGUMENT, which ends attnctl with exit code kUsage.
absl::Status UsageError(const std::string& message);

bool IsUsageError(const absl::Status& status);

}  // namespace attnd::ctl
