// JSON as Python's json module reads and writes it. Hugging Face's config files are written this way.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "files/json_builder.h"
#include "files/json_document.h"

namespace attnd::files {

// Parses one value with nothing after it. Beyond JSON, accepts: the words NaN, Infinity and -Infinity; numbers that no
// double holds (integers become floating-point values, the largest ones infinite); an escape of one half of a surrogate
// pair (U+FFFD in the result); and, with kLastCounts, repeated keys. Values that are not finite are doubles in the
// result. Refuses, as Python does, a byte-order mark, invalid UTF-8, and control characters in strings; and nesting
// deeper than `max_depth`. Errors: INVALID_ARGUMENT, with the position.
absl::StatusOr<JsonDocument> ParsePythonJson(std::string_view text, int max_depth, DuplicateKeys duplicate_keys);

}  // namespace attnd::files
