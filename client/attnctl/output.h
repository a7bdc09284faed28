// Where a command's result goes.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::ctl {

// Writes `contents` to `path` (files/output_file.h), or to standard output if it is empty or "-". Errors: those of
// writing the file, marked as OutputError does.
absl::Status WriteOutput(const std::string& path, const std::string& contents);

// Whether what is written to `path` goes where messages for people go, too.
bool IsStandardOutput(const std::string& path);

// Whether two paths lead to one regular file, by whatever names and links.
bool IsSameFile(const std::string& a, const std::string& b);

// Whether a file can be there at all, before something long is done to fill it: OK, or what WriteOutput would say of a
// folder that does not exist, and of a folder in the file's place.
absl::Status CheckOutput(const std::string& path);

// Marks an error as one of writing a result on this machine, and not of the server.
absl::Status OutputError(absl::Status status);

bool IsOutputError(const absl::Status& status);

}  // namespace attnd::ctl
