// Strict JSON, for files that describe memory.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "files/json_document.h"

namespace attnd::files {

// Parses one JSON value with nothing after it. Beyond JSON's own rules, refuses a repeated key in an object, nesting
// deeper than `max_depth`, strings that are not UTF-8, and numbers that a double cannot hold. Errors: INVALID_ARGUMENT,
// with the position.
absl::StatusOr<JsonDocument> ParseStrictJson(std::string_view text, int max_depth);

}  // namespace attnd::files
