// What an address of --listen means: "host:port", "[v6]:port" or a Unix socket's name (src/contract/unix_name.h).
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

struct Address {
  std::optional<std::string> unix_path;  // of a Unix socket; the others are empty then
  std::string host;                      // a name, or an IP address without brackets
  std::string port;                      // 0 to 65535
};

// The form alone. Errors: INVALID_ARGUMENT naming --listen.
absl::StatusOr<Address> ParseAddress(const std::string& address);

// The path of a Unix address; nullopt for other addresses.
std::optional<std::string> UnixPathOf(absl::string_view address);

// The address with the port that was bound in place of its own, which may have been 0. Unix addresses stay.
std::string WithPort(const std::string& address, int port);

}  // namespace attnd::server
