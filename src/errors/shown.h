// Makes text from a caller or a file safe for an error message or a log line.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::errors {

// Length in bytes of the longest prefix of `text` that is UTF-8 (RFC 3629) and ends with a whole character.
std::size_t Utf8Prefix(absl::string_view text);

// The longest prefix of at most `max_bytes` bytes that ends at a character boundary. Each byte that is not UTF-8 counts
// as one character.
absl::string_view CutAtCharacter(absl::string_view text, std::size_t max_bytes);

// Returns `text` as one line of printable UTF-8: control characters and bytes that are not UTF-8 become \xNN. A result
// longer than `max_bytes` is cut at a character boundary (never inside a \xNN) and ends with "...". Idempotent.
std::string Shown(absl::string_view text, std::size_t max_bytes);

}  // namespace attnd::errors
