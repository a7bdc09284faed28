// Why a server cannot be reached, in plain words.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace attnd::ctl {

// The reason in a message of gRPC ("failed to connect to all addresses; last error: ..."): its last and most particular
// part, or, for what is common, words of our own.
std::string PlainReason(absl::string_view message);

}  // namespace attnd::ctl
