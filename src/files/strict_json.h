// JSON as strictly as a file that describes memory needs it.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "files/json_document.h"

namespace attnd::files {

// Parses one JSON value and nothing after it. Refuses, beyond what JSON itself does: a key given twice in one object,
// nesting deeper than `max_depth`, strings that are not UTF-8, numbers that double cannot hold. Errors:
// INVALID_ARGUMENT, saying where.
absl::StatusOr<JsonDocument> ParseStrictJson(std::string_view text, int max_depth);

}  // namespace attnd::files
