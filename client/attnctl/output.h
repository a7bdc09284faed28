// Where a command's result goes.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::ctl {

// Writes `contents` to `path`, or to standard output if it is empty or "-". Errors: those of opening and writing the
// file.
absl::Status WriteOutput(const std::string& path, const std::string& contents);

}  // namespace attnd::ctl
