// Standard output as it should be used: what cannot be written is an error, and what was closed stays closed.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace attnd::files {

// Writes all of `text` to standard output, also where that does not block. Errors: see WriteError (output_file.h).
absl::Status WriteStandardOutput(std::string_view text);

// For the beginning of main. A program that was started without standard input, output or error would get its first
// files and sockets under their numbers, and what is printed would go there. This keeps their places: reading and
// writing them fails with EBADF.
void HoldStandardStreams();

}  // namespace attnd::files
