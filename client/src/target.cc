#include "client/src/target.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "attnd/shm/protocol.h"
#include "contract/unix_name.h"

namespace attnd::client {
namespace {

// Whether gRPC reads the text before the first colon as a scheme, not as the host of "host:port".
bool IsScheme(absl::string_view s) {
  constexpr std::array kSchemes = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "passthrough"};
  for (const char* scheme : kSchemes) {
    if (s == scheme) return true;
  }
  return false;
}

std::string PercentDecode(absl::string_view s) {
  std::string decoded;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '%' && i + 2 < s.size() && absl::ascii_isxdigit(static_cast<unsigned char>(s[i + 1])) &&
        absl::ascii_isxdigit(static_cast<unsigned char>(s[i + 2]))) {
      decoded += static_cast<char>(std::stoi(std::string(s.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      decoded += s[i];
    }
  }
  return decoded;
}

// The host of "host:port", "host", "[address]:port" or an IPv6 address by itself.
absl::string_view HostOf(absl::string_view address) {
  if (absl::ConsumePrefix(&address, "[")) return address.substr(0, address.find(']'));
  const std::size_t colon = address.find(':');
  if (colon == absl::string_view::npos || address.find(':', colon + 1) != absl::string_view::npos) return address;
  return address.substr(0, colon);
}

bool IsLoopback(absl::string_view address) {
  std::string host = absl::AsciiStrToLower(HostOf(address));
  host = std::string(absl::StripSuffix(host, "."));
  if (host == "localhost") return true;
  host = host.substr(0, host.find('%'));  // an IPv6 zone
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return false;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

}  // namespace

bool IsLocalTarget(absl::string_view target) {
  const std::size_t colon = target.find(':');
  absl::string_view rest = target;
  if (colon != absl::string_view::npos) {
    const std::string scheme = absl::AsciiStrToLower(target.substr(0, colon));
    if (absl::StartsWith(scheme, "unix")) return IsScheme(scheme);
    if (IsScheme(scheme)) {
      rest = target.substr(colon + 1);
      // "//authority/": for dns the DNS server, which does not matter here.
      if (absl::ConsumePrefix(&rest, "//")) {
        const std::size_t slash = rest.find('/');
        rest = slash == absl::string_view::npos ? absl::string_view() : rest.substr(slash + 1);
      }
      absl::ConsumePrefix(&rest, "/");
    }
  }
  const std::string addresses = PercentDecode(rest);
  for (absl::string_view address : absl::StrSplit(addresses, ',')) {
    if (!IsLoopback(address)) return false;
  }
  return true;
}

std::optional<std::string> SocketBeside(const std::string& target) {
  std::optional<std::string> path = contract::UnixPath(target);
  if (path.has_value()) *path += shm::kSocketSuffix;
  return path;
}

}  // namespace attnd::client
