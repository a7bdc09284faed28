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

// Marks an error as one of writing a result on this machine, and not of the server.
absl::Status OutputError(absl::Status status);

bool IsOutputError(const absl::Status& status);

}  // namespace attnd::ctl
