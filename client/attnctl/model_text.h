// Prints models.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/models.h"
#include "client/attnctl/flags.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {

nlohmann::ordered_json ToJson(const Model& model);

// Several lines: the model's properties, and one line for each table.
std::string Described(const Model& model);

// Prints a model that a call has loaded or created ("loaded mine version 1 ..."), or its JSON with --json. Errors: the
// error in `model`; see WriteOutput.
absl::Status PrintMade(const char* verb, const absl::StatusOr<Model>& model, const Flags& flags);

}  // namespace attnd::ctl
