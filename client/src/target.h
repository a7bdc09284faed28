// Properties of a target (a gRPC name) that the client needs.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::client {

// Whether every address of `target` is on this host: a Unix socket, "localhost", 127.0.0.0/8 or ::1, in any form that
// gRPC accepts. Does not resolve names: a name that /etc/hosts maps to a loopback address counts as remote.
bool IsLocalTarget(absl::string_view target);

// The path of the socket next to the Unix socket that `target` names (docs/shared-memory.md); nullopt if it names none.
std::optional<std::string> SocketBeside(const std::string& target);

}  // namespace attnd::client
