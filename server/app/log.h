// Logging to standard error, including gRPC's lines.
#pragma once

#include "absl/strings/string_view.h"

namespace attnd::server {

// `level` is one of Options::log_level. Call once, before other threads exist.
void SetUpLog(absl::string_view level);

}  // namespace attnd::server
