#include "server/rpc/peers.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace attnd::server {
namespace {

constexpr int kMappedBits = 96;  // before the IPv4 address in an IPv4-mapped IPv6 address
constexpr absl::string_view kMappedPrefix = "::ffff:";

std::optional<std::array<std::uint8_t, 16>> ParseHost(absl::string_view host) {
  const std::string text(host);
  std::array<std::uint8_t, 16> address{};
  if (inet_pton(AF_INET6, text.c_str(), address.data()) == 1) return address;
  address[10] = address[11] = 0xff;
  if (inet_pton(AF_INET, text.c_str(), address.data() + 12) == 1) return address;
  return std::nullopt;
}

// Strips port and brackets from "a:1", "[b]:1", "[b]" or "b"; gRPC may escape the brackets.
absl::string_view HostOf(absl::string_view address) {
  for (const auto& [open, close] : {std::pair<absl::string_view, absl::string_view>{"[", "]"}, {"%5B", "%5D"}}) {
    if (!absl::ConsumePrefix(&address, open)) continue;
    return address.substr(0, address.rfind(close));
  }
  const std::size_t colon = address.rfind(':');
  // More than one colon: an IPv6 address without brackets, and so without a port.
  return colon == absl::string_view::npos || address.find(':') != colon ? address : address.substr(0, colon);
}

std::string WithoutMapping(absl::string_view host) {
  absl::string_view mapped = host;
  const bool is_mapped = absl::ConsumePrefix(&mapped, kMappedPrefix) && absl::StrContains(mapped, '.');
  return std::string(is_mapped ? mapped : host);
}

bool AnyContains(const std::vector<AddressRange>& ranges, absl::string_view host) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const AddressRange& range) { return range.Contains(host); });
}

}  // namespace

absl::StatusOr<AddressRange> AddressRange::Parse(absl::string_view text) {
  const std::size_t slash = text.find('/');
  const absl::string_view host = text.substr(0, slash);
  const std::optional<Address> address = ParseHost(host);
  const int most = absl::StrContains(host, ':') ? 128 : 32;
  int prefix = most;
  const bool number = slash == absl::string_view::npos || absl::SimpleAtoi(text.substr(slash + 1), &prefix);
  if (!address.has_value() || !number || prefix < 0 || prefix > most) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no address or range of addresses"));
  }
  return AddressRange(*address, most == 32 ? kMappedBits + prefix : prefix);
}

bool AddressRange::Contains(absl::string_view host) const {
  const std::optional<Address> address = ParseHost(host);
  if (!address.has_value()) return false;
  for (int bit = 0; bit < prefix_; bit += 8) {
    const auto byte = static_cast<std::size_t>(bit / 8);
    const int bits = std::min(8, prefix_ - bit);
    const int mask = 0xff00 >> bits & 0xff;
    if ((((*address)[byte] ^ address_[byte]) & mask) != 0) return false;
  }
  return true;
}

std::string PeerName(absl::string_view grpc_peer) {
  if (absl::ConsumePrefix(&grpc_peer, "ipv4:")) return std::string(HostOf(grpc_peer));
  if (absl::ConsumePrefix(&grpc_peer, "ipv6:")) return WithoutMapping(HostOf(grpc_peer));
  if (absl::StartsWith(grpc_peer, "unix")) return "unix";
  return std::string(grpc_peer);
}

std::string ForwardedPeer(absl::string_view forwarded, const std::vector<AddressRange>& proxies) {
  const std::vector<absl::string_view> hops = absl::StrSplit(forwarded, ',');
  for (auto hop = hops.rbegin(); hop != hops.rend(); ++hop) {
    const std::string host = WithoutMapping(HostOf(absl::StripAsciiWhitespace(*hop)));
    const std::optional<std::array<std::uint8_t, 16>> address = ParseHost(host);
    if (!address.has_value()) return "";
    if (AnyContains(proxies, host)) continue;
    // Normalize: the sender could write one address in many ways.
    char text[INET6_ADDRSTRLEN] = {};
    inet_ntop(AF_INET6, address->data(), text, sizeof(text));
    return WithoutMapping(text);
  }
  return "";
}

std::string Peers::NameOf(const grpc::ServerContextBase& context) const {
  std::string name = PeerName(context.peer());
  if (!proxies_.empty() && AnyContains(proxies_, name)) {
    // If there are several headers, the last one is the last proxy's.
    const auto [begin, end] = context.client_metadata().equal_range("x-forwarded-for");
    std::string forwarded;
    for (auto header = begin; header != end; ++header) {
      absl::StrAppend(&forwarded, forwarded.empty() ? "" : ",",
                      absl::string_view(header->second.data(), header->second.size()));
    }
    if (std::string caller = ForwardedPeer(forwarded, proxies_); !caller.empty()) name = std::move(caller);
  }
  return name;
}

}  // namespace attnd::server
