// Names of models and tables, and paths below the model root.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnd::model {

// A name has one part, or two with a '/' between them, like a repository on the Hub. A part consists of letters,
// digits, '_', '-' and '.', and does not start with '.'. The whole name has 1 to 128 characters. Errors:
// INVALID_ARGUMENT for any other name.
absl::Status CheckModelName(std::string_view name);

// Errors: INVALID_ARGUMENT unless `name` is "decoder", "encoder", or one of them followed by '.' and a layer's number.
absl::Status CheckTableName(std::string_view name);

// "decoder" for "decoder.3"; empty for a name without a layer's number.
std::string_view SharedTableName(std::string_view name);

// `path` without empty and "." parts; "." if no part is left. Errors: INVALID_ARGUMENT if `path` is empty or contains a
// NUL, PERMISSION_DENIED if it is absolute or has a ".." part.
absl::StatusOr<std::string> NormalizePath(std::string_view path);

// The last part of a path, without its extension if that is `.gguf` or `.json`.
std::string Stem(std::string_view path);

// Whether a path ends like that of a GGUF shard other than the first: "name-00002-of-00003.gguf".
bool IsFurtherShard(std::string_view path);

// `text` in quotes for a message, printable and cut if it is long.
std::string Quoted(std::string_view text);

}  // namespace attnd::model
