// Reader of attnd's own JSON for tables made by hand. docs/models.md has the format.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// Errors: INVALID_ARGUMENT with the field at fault: not strict JSON, a field that is missing, unknown or of another
// type, an invalid table. RESOURCE_EXHAUSTED beyond the limits.
absl::StatusOr<ModelTables> ParseJsonModel(std::string_view text, const ReadLimits& limits);

}  // namespace attnd::model
