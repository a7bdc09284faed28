// attnd's command line.
#pragma once

#include "absl/status/statusor.h"
#include "server/config/options.h"

namespace attnd::server {

// What the flags of the command line say. Prints and ends the process (status 0) for --help and --version, and with a
// message and status 2 for an unknown flag or a value of the wrong type. Errors: INVALID_ARGUMENT for a value out of
// range or an argument that is no flag.
absl::StatusOr<Options> OptionsFromCommandLine(int argc, char** argv);

}  // namespace attnd::server
