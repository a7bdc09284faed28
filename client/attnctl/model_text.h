// Models as the commands print them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/models.h"
#include "client/attnctl/flags.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {

nlohmann::ordered_json ToJson(const Model& model);

// Several lines: its facts, and a line for each table.
std::string Described(const Model& model);

// Prints a model that a call has made ("loaded mine version 1 ..."), or --json of it. Errors: the model's; see
// WriteOutput.
absl::Status PrintMade(const char* verb, const absl::StatusOr<Model>& model, const Flags& flags);

}  // namespace attnd::ctl
