// Safe use of the standard streams: a failed write is an error, and a stream that was closed at the start stays closed.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace attnd::files {

// Writes all of `text` to standard output, even if it is non-blocking. Errors: see WriteError (output_file.h).
absl::Status WriteStandardOutput(std::string_view text);

// Call it at the beginning of main. In a program started without standard input, output or error, the first files and
// sockets would get their descriptor numbers, and printed text would end up there. This occupies those numbers with
// descriptors that fail with EBADF on reads and writes.
void HoldStandardStreams();

}  // namespace attnd::files
