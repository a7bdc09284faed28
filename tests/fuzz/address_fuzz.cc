// Addresses of --listen: the input is one, and the path of a Unix socket.
#include "server/net/address.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "check.h"
#include "contract/unix_name.h"

namespace attnd::server {
namespace {

using fuzz::Check;

void CheckAddress(const std::string& text) {
  const absl::StatusOr<Address> address = ParseAddress(text);
  if (!address.ok()) {
    Check(absl::IsInvalidArgument(address.status()), "a bad address is INVALID_ARGUMENT");
    Check(absl::StrContains(address.status().message(), "--listen"), "a refusal names the flag");
    Check(address.status().message().size() < 1000, "a refusal is short");
    return;
  }
  Check(UnixPathOf(text) == address->unix_path, "both ways to a path agree");
  if (address->unix_path.has_value()) {
    Check(address->host.empty() && address->port.empty(), "a Unix socket has neither host nor port");
    Check(!absl::StrContains(*address->unix_path, absl::string_view("\0", 1)), "a path ends where it ends");
    Check(WithPort(text, 7) == text, "a Unix address stays");
    return;
  }
  Check(!address->host.empty(), "there is a host");
  int port = -1;
  Check(std::all_of(address->port.begin(), address->port.end(), absl::ascii_isdigit) &&
            absl::SimpleAtoi(address->port, &port) && port >= 0 && port <= 65535,
        "a port is 0 to 65535");
  Check(absl::StartsWith(text, "[") == absl::StrContains(address->host, ':'), "brackets hold what has colons");
  const absl::StatusOr<Address> bound = ParseAddress(WithPort(text, 50051));
  Check(bound.ok() && bound->host == address->host && bound->port == "50051", "the port alone is replaced");
}

void CheckPath(const std::string& path) {
  if (absl::StrContains(path, absl::string_view("\0", 1)) || path.empty()) return;
  const absl::StatusOr<Address> address = ParseAddress(contract::UnixName(path));
  Check(address.ok() && address->unix_path == path, "a path comes back from its name");
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  attnd::server::CheckAddress(text);
  attnd::server::CheckPath(text);
  return 0;
}
