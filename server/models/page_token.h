// Page tokens of ListModels: where the next page begins, as an opaque string.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

// The token of the page after the model called `last_name`.
std::string MakePageToken(absl::string_view last_name);

// The name in a token; empty for the empty token of the first page. Errors: INVALID_ARGUMENT for a token that
// MakePageToken does not make.
absl::StatusOr<std::string> ParsePageToken(absl::string_view token);

}  // namespace attnd::server
