// Writes a result where the user asked for it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attnd::files {

using Bytes = absl::Span<const std::byte>;

// Writes `pieces`, one after the other, to `path`; "-" is standard output. Otherwise the behaviour depends on what is
// at `path`, links followed:
// - nothing: a new file appears once it is complete and on disk, and not before;
// - a regular file: the same, with the old file's owner and permissions. If that is not possible (the file has several
//   names or another owner, or its folder cannot be written), space is reserved and the file is overwritten in place;
// - this process's standard output or error, as a file, pipe or socket: `pieces` are written to that stream, after
//   earlier output;
// - a device, FIFO or terminal: `pieces` are written to it.
// Waits on non-blocking descriptors. Replaces nothing but regular files. A regular file stays as it was if there
// is no space for the new one. Errors: those of WriteError; INVALID_ARGUMENT for a folder or any other socket.
absl::Status WriteFile(const std::string& path, absl::Span<const Bytes> pieces);

// Whether WriteFile writes `path` to standard output.
bool IsStandardOutput(const std::string& path);

// The status for an errno of open(), write() or rename(); the message names `name`: NOT_FOUND (no such folder),
// PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk full, file too large, no descriptors), otherwise FAILED_PRECONDITION.
absl::Status WriteError(int error, std::string_view name);

}  // namespace attnd::files
