// What a target (a gRPC name) stands for, as far as the client must know it.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::client {

// Whether every address of `target` is on this host: a Unix socket, "localhost", 127.0.0.0/8 or ::1, in any of the
// forms that gRPC accepts. Names are not looked up: one that /etc/hosts gives a loopback address counts as remote.
bool IsLocalTarget(absl::string_view target);

// The path of the socket beside the Unix socket that `target` names (docs/shared-memory.md); nullopt if it names none.
std::optional<std::string> SocketBeside(const std::string& target);

}  // namespace attnd::client
