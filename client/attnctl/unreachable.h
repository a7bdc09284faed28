// Explains in plain words why a server cannot be reached.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace attnd::ctl {

// Returns the reason in a gRPC message ("failed to connect to all addresses; last error: ..."): our own words for
// common causes, otherwise the last and most specific part.
std::string PlainReason(absl::string_view message);

}  // namespace attnd::ctl
