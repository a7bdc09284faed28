// What the system says of a file, as a status.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::files {

// The status of an errno of opening, reading, writing or renaming a file: NOT_FOUND (no such file or folder),
// PERMISSION_DENIED, RESOURCE_EXHAUSTED (no descriptors or memory, a full disk, a file too large), otherwise
// `otherwise`. Its message is `what`, a colon, and the system's words.
absl::Status SystemError(int error, const std::string& what, absl::StatusCode otherwise);

}  // namespace attnd::files
