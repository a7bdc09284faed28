// JSON as Python's json module reads and writes it, which is what Hugging Face's config files are.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "files/json_builder.h"
#include "files/json_document.h"

namespace attnd::files {

// Parses one value and nothing after it. Beyond JSON this takes the words NaN, Infinity and -Infinity, numbers that no
// double holds (integers then count as floating-point values, the largest as infinite), escapes of one half of a
// surrogate pair (U+FFFD in the result), and, with kLastCounts, a key given twice. Values that are not finite are
// doubles in the result. Refuses, as Python does, a byte-order mark, what is not UTF-8 and control characters in
// strings; and nesting deeper than `max_depth`. Errors: INVALID_ARGUMENT, saying where.
absl::StatusOr<JsonDocument> ParsePythonJson(std::string_view text, int max_depth, DuplicateKeys duplicate_keys);

}  // namespace attnd::files
