// Parses an address of --listen: "host:port", "[v6]:port" or a Unix socket's name (src/contract/unix_name.h).
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

struct Address {
  std::optional<std::string> unix_path;  // of a Unix socket; host and port are then empty
  std::string host;                      // a name, or an IP address without brackets
  std::string port;                      // 0 to 65535
};

// Checks only the form. Errors: INVALID_ARGUMENT naming --listen.
absl::StatusOr<Address> ParseAddress(const std::string& address);

// The path of a Unix address; nullopt for other addresses.
std::optional<std::string> UnixPathOf(absl::string_view address);

// The address with the port that was bound instead of its own, which may have been 0. Unix addresses stay unchanged.
std::string WithPort(const std::string& address, int port);

}  // namespace attnd::server
