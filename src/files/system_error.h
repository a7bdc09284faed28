// Turns the system's errors on files into statuses.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::files {

// The status for an errno of opening, reading, writing or renaming a file: NOT_FOUND (no such file or folder),
// PERMISSION_DENIED, RESOURCE_EXHAUSTED (no descriptors or memory, disk full, file too large), otherwise `otherwise`.
// The message is `what`, a colon, and the system's text.
absl::Status SystemError(int error, const std::string& what, absl::StatusCode otherwise);

}  // namespace attnd::files
