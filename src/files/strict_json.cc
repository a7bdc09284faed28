#include "files/strict_json.h"

#include "absl/strings/str_cat.h"
#include "files/json_builder.h"

namespace attnd::files {

absl::StatusOr<JsonDocument> ParseStrictJson(std::string_view text, int max_depth) {
  JsonBuilder builder(max_depth, DuplicateKeys::kRefused);
  absl::StatusOr<JsonDocument> json = builder.Parse(text);
  if (json.ok()) return json;
  return absl::InvalidArgumentError(absl::StrCat("not strict JSON: ", json.status().message()));
}

}  // namespace attnd::files
