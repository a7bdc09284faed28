// What an address means: "host:port", "[v6]:port", "unix:path" or "unix:///absolute/path".
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

// The path of a Unix address; nullopt for other addresses.
std::optional<std::string> UnixPathOf(absl::string_view address);

// The form alone. Errors: INVALID_ARGUMENT naming --listen.
absl::Status CheckAddress(const std::string& address);

// Tries whether this process may listen on the address, since gRPC says only that it could not. Errors: UNAVAILABLE
// with the address and the system's reason (in use, no permission, no such host, ...).
absl::Status CheckCanListen(const std::string& address);

// The address with the port that was bound in place of its own, which may have been 0. Unix addresses stay.
std::string WithPort(const std::string& address, int port);

}  // namespace attnd::server
