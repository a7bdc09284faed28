// attnd's command line.
#pragma once

#include "absl/status/statusor.h"
#include "server/config/options.h"

namespace attnd::server {

// Parses the command line's flags. For --help and --version, prints and exits with status 0. For an unknown flag or a
// value of the wrong type, prints a message and exits with status 2. Errors: INVALID_ARGUMENT for a value out of range
// or an argument that is not a flag.
absl::StatusOr<Options> OptionsFromCommandLine(int argc, char** argv);

}  // namespace attnd::server
