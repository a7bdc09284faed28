// Logging: lines on standard error, gRPC's own among them.
#pragma once

#include "absl/strings/string_view.h"

namespace attnd::server {

// `level` is one of Options::log_level. Call once, before other threads exist.
void SetUpLog(absl::string_view level);

}  // namespace attnd::server
