// Reader of attnd's own JSON format for tables made by hand. docs/models.md describes the format.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// Errors: INVALID_ARGUMENT with the field at fault: JSON that is not strict, a field that is missing, unknown or of
// another type, an invalid table. RESOURCE_EXHAUSTED beyond the limits.
absl::StatusOr<ModelTables> ParseJsonModel(std::string_view text, const ReadLimits& limits);

}  // namespace attnd::model
