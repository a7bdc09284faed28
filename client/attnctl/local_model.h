// Models in local files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/model.h"

namespace attnd::ctl {

// Reads a model's tables from a local checkpoint folder, GGUF file or JSON file, the same way as the server. Errors:
// see model::ReadModel.
absl::StatusOr<model::ModelTables> ReadLocalModel(const std::string& path);

}  // namespace attnd::ctl
