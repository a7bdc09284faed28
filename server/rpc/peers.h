// Who calls: the peer whose share of the memory a gRPC call takes from.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/server_context.h"
#include "memory/ledger.h"

namespace attnd::server {

// Addresses of one network: an IPv4 or IPv6 address, or a range of them ("10.0.0.0/8", "fd00::/8").
class AddressRange {
 public:
  // Errors: INVALID_ARGUMENT. Bits beyond the prefix are ignored.
  static absl::StatusOr<AddressRange> Parse(absl::string_view text);

  // Whether `host`, an address without a port, is one of them; an IPv4 address that IPv6 has mapped ("::ffff:10.0.0.1")
  // is that IPv4 address.
  bool Contains(absl::string_view host) const;

 private:
  using Address = std::array<std::uint8_t, 16>;  // IPv4: mapped into IPv6
  AddressRange(const Address& address, int prefix) : address_(address), prefix_(prefix) {}
  Address address_;
  int prefix_;  // bits of `address_` that count
};

// The peer at the other end as gRPC writes it (context.peer()): the address without its port, an IPv4 address that IPv6
// has mapped as that IPv4 address, "unix" for every Unix socket, and anything else as it is.
std::string PeerName(absl::string_view grpc_peer);

// The caller that `forwarded` ("x-forwarded-for": addresses, each written by the proxy that it reached) names: the last
// one that is no trusted proxy; empty if there is none, or it is no address.
std::string ForwardedPeer(absl::string_view forwarded, const std::vector<AddressRange>& proxies);

// The accounts of gRPC's callers. A caller is the TCP address at the other end of its connection. Behind a proxy that
// is trusted it is the address that the proxy names. On Unix sockets all are one. Thread-safe; borrows the ledger.
class Peers {
 public:
  explicit Peers(memory::Ledger& ledger, std::vector<AddressRange> proxies = {})
      : ledger_(ledger), proxies_(std::move(proxies)) {}

  std::shared_ptr<memory::Account> AccountOf(const grpc::ServerContextBase& context) const {
    return ledger_.AccountOf(NameOf(context));
  }
  // The account of what the caller's sessions hold: apart from that of its calls, so that a session which holds much
  // does not keep its own steps from what they need.
  std::shared_ptr<memory::Account> SessionAccountOf(const grpc::ServerContextBase& context) const {
    return ledger_.AccountOf("sessions of " + NameOf(context));
  }

 private:
  std::string NameOf(const grpc::ServerContextBase& context) const;

  memory::Ledger& ledger_;
  const std::vector<AddressRange> proxies_;
};

}  // namespace attnd::server
