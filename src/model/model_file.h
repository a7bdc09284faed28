// Reads the model at a path, whatever its format.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/folder.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// What a path has to name, for error messages.
inline constexpr char kExpectedModel[] = "expected a Hugging Face checkpoint folder, a .gguf file or a .json file";

// The model at `path` (normalized, names.h) below `root`: a Hugging Face checkpoint folder, a repository's folder in
// the Hub's cache (hub_cache.h), or a `.gguf` or `.json` file. Errors: those of Folder::Open and of the readers, each
// message beginning with the path; INVALID_ARGUMENT for another kind of file.
absl::StatusOr<ModelTables> ReadModel(const Folder& root, const std::string& path, const ReadLimits& limits);

}  // namespace attnd::model
