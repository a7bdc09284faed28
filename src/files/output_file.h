// Writing a result where the user said.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attnd::files {

using Bytes = absl::Span<const std::byte>;

// Writes `pieces`, one after the other, to `path`; "-" is standard output. Otherwise what happens depends on what
// stands there, links followed:
// - nothing: a new file appears when it is complete and on disk, and not before;
// - a regular file: the same, with the old file's owner and permissions. Where that cannot be done (it has several
//   names, another owner, or stands in a folder that cannot be written) its space is reserved, and it is overwritten in
//   place;
// - a file or pipe that is this process's standard output or error: they are written there, after what was;
// - a device, FIFO or terminal: they are written to it.
// Descriptors that do not block are waited for. Nothing but a regular file is ever replaced. A regular file is left as
// it was if there is no space for the new one. Errors: those of WriteError; INVALID_ARGUMENT for a folder or a socket.
absl::Status WriteFile(const std::string& path, absl::Span<const Bytes> pieces);

// Whether WriteFile writes `path` to standard output.
bool IsStandardOutput(const std::string& path);

// What an errno of open(), write() or rename() says, as a status that names `name`: NOT_FOUND (no such folder),
// PERMISSION_DENIED, RESOURCE_EXHAUSTED (the disk is full, the file too large, no descriptors), else
// FAILED_PRECONDITION.
absl::Status WriteError(int error, std::string_view name);

}  // namespace attnd::files
