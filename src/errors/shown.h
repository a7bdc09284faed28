// Text of a caller or of a file, as it may stand in a message or a line of the log.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::errors {

// Length in bytes of the longest prefix of `text` that is UTF-8 (RFC 3629) and ends with a whole character.
std::size_t Utf8Prefix(absl::string_view text);

// The longest prefix of at most `max_bytes` bytes that ends at the border of a character. Bytes that are no UTF-8 count
// as a character each.
absl::string_view CutAtCharacter(absl::string_view text, std::size_t max_bytes);

// Printable UTF-8 of one line: control characters and bytes that are no UTF-8 as \xNN, the rest as it is. A result
// longer than `max_bytes` is cut at the border of a character (never within a \xNN) and ends with "...". What this
// returns it leaves as it is.
std::string Shown(absl::string_view text, std::size_t max_bytes);

}  // namespace attnd::errors
