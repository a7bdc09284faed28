// Writes a command's result.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace attnd::ctl {

// Writes `contents` to `path` (files/output_file.h), or to standard output if `path` is empty or "-". Errors: those of
// writing the file, marked by OutputError.
absl::Status WriteOutput(const std::string& path, const std::string& contents);

// Whether `path` leads to standard output, where messages for people also go.
bool IsStandardOutput(const std::string& path);

// Whether two paths lead to the same regular file, by any names and links.
bool IsSameFile(const std::string& a, const std::string& b);

// Checks that a file can be created, before long work to produce its contents: OK, or the error that WriteOutput would
// return for a folder that does not exist, or for a folder in the file's place.
absl::Status CheckOutput(const std::string& path);

// Marks an error as one of writing a result on this machine, not of the server.
absl::Status OutputError(absl::Status status);

bool IsOutputError(const absl::Status& status);

}  // namespace attnd::ctl
