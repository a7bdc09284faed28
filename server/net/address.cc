#include "server/net/address.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "contract/unix_name.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

bool IsPort(absl::string_view port) {
  std::uint32_t number;
  return std::all_of(port.begin(), port.end(), absl::ascii_isdigit) && absl::SimpleAtoi(port, &number) &&
         number <= 65535;
}

}  // namespace

absl::StatusOr<Address> ParseAddress(const std::string& address) {
  if (contract::IsUnixName(address)) {
    std::optional<std::string> path = UnixPathOf(address);
    if (!path.has_value()) return InvalidField("--listen", contract::kUnixNames, address);
    return Address{std::move(path), "", ""};
  }
  const std::size_t colon = std::min(address.rfind(':'), address.size());
  absl::string_view host = absl::string_view(address).substr(0, colon);
  const absl::string_view port = absl::string_view(address).substr(std::min(colon + 1, address.size()));
  // Without brackets, the last colon could belong to the port or to an IPv6 address.
  const bool bracketed = absl::StartsWith(host, "[") && absl::EndsWith(host, "]");
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty() || !IsPort(port) || host.find_first_of("[]") != absl::string_view::npos ||
      absl::StrContains(host, ':') != bracketed) {
    return InvalidField("--listen", "host:port, [v6]:port or unix:path, separated by commas", address);
  }
  return Address{std::nullopt, std::string(host), std::string(port)};
}

std::optional<std::string> UnixPathOf(absl::string_view address) { return contract::UnixPath(address); }

std::string WithPort(const std::string& address, int port) {
  if (UnixPathOf(address).has_value()) return address;
  return absl::StrCat(address.substr(0, address.rfind(':') + 1), port);
}

}  // namespace attnd::server
