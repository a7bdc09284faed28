// Logging: lines on standard error, gRPC's own among them.
#pragma once

#include "absl/strings/string_view.h"

namespace attnd::server {

// Whether `level` is one that SetUpLog takes: trace, debug, info, warn, error, off.
bool IsLogLevel(absl::string_view level);

// Call once, before other threads exist.
void SetUpLog(absl::string_view level);

}  // namespace attnd::server
