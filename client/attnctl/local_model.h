// Models of this machine.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/model.h"

namespace attnd::ctl {

// A model's tables from a checkpoint folder, a GGUF file or a JSON file of this machine, read as the server reads them.
// Errors: see model::ReadModel.
absl::StatusOr<model::ModelTables> ReadLocalModel(const std::string& path);

}  // namespace attnd::ctl
