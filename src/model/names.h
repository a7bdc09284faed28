// Names of models and tables, and paths below the model root.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnd::model {

// Errors: INVALID_ARGUMENT unless 1 to 128 letters, digits, '_', '-' and '.', not starting with '.', or two such parts
// with a '/' between them, as repositories on the Hub are named.
absl::Status CheckModelName(std::string_view name);

// Errors: INVALID_ARGUMENT unless "decoder", "encoder", or one of them, '.', and a layer's number.
absl::Status CheckTableName(std::string_view name);

// "decoder" of "decoder.3"; empty for a name without a layer's number.
std::string_view SharedTableName(std::string_view name);

// `path` without empty and "." parts; "." if there is no other. Errors: INVALID_ARGUMENT if it is empty or holds a NUL,
// PERMISSION_DENIED if it is absolute or has a ".." part.
absl::StatusOr<std::string> NormalizePath(std::string_view path);

// The last part of a path without its extension if it has one of `.gguf` and `.json`.
std::string Stem(std::string_view path);

// Whether a path ends as that of a shard of a GGUF model other than the first: "name-00002-of-00003.gguf".
bool IsFurtherShard(std::string_view path);

// `text` for a message: whatever it holds, printable and not too long.
std::string Quoted(std::string_view text);

}  // namespace attnd::model
