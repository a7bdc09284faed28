// Explains why the system denies access to a file: its owner, its mode, and the user that asks.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::files {

// SystemError for an errno of opening `path`, relative to the folder with descriptor `folder` (or AT_FDCWD). The
// message begins with `shown`. If permissions are at fault, it continues with the object that denies access (`path`
// itself, or a folder on the way that may not be searched), its owner and mode, the user that this process runs as, and
// how to grant access. A link to nothing is INVALID_ARGUMENT, and the message says that it is one. Examines the file
// again, so call it right after the failure.
absl::Status ExplainedOpenError(int error, int folder, const std::string& path, const std::string& shown);

}  // namespace attnd::files
