// Why the system denies access to a file: whose it is, its mode, and who asks.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::files {

// SystemError of an errno of opening `path`, relative to the folder that `folder` is a descriptor of (or AT_FDCWD); the
// message begins with `shown`. Where permissions are at fault it goes on with what denies access (`path` itself, or the
// folder on its way that may not be searched), whose that is, its mode, the user that this process runs as, and what
// lets it in. A link to nothing is INVALID_ARGUMENT, and the message says that it is one. Looks the file up anew, so
// call it right after the failure.
absl::Status ExplainedOpenError(int error, int folder, const std::string& path, const std::string& shown);

}  // namespace attnd::files
