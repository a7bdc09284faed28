// The peer of a gRPC call: whose share of the memory the call uses.
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

  // Whether `host`, an address without a port, is in the range. An IPv4-mapped IPv6 address ("::ffff:10.0.0.1") counts
  // as the IPv4 address.
  bool Contains(absl::string_view host) const;

 private:
  using Address = std::array<std::uint8_t, 16>;  // IPv4: mapped into IPv6
  AddressRange(const Address& address, int prefix) : address_(address), prefix_(prefix) {}
  Address address_;
  int prefix_;  // bits of `address_` that count
};

// Name of the peer that gRPC calls `grpc_peer` (context.peer()): the address without its port, an IPv4-mapped IPv6
// address as the IPv4 address, "unix" for every Unix socket, and anything else unchanged.
std::string PeerName(absl::string_view grpc_peer);

// The peer that the header x-forwarded-for names. `forwarded` is a list of addresses, each appended by the proxy that
// saw it. Returns the last one that is not a trusted proxy; empty if there is none, or if it is not an address.
std::string ForwardedPeer(absl::string_view forwarded, const std::vector<AddressRange>& proxies);

// The accounts of gRPC's peers. A peer is the TCP address at the other end of the connection, or, behind a trusted
// proxy, the address that the proxy names. All callers on Unix sockets are one peer. Thread-safe; borrows the ledger.
class Peers {
 public:
  explicit Peers(memory::Ledger& ledger, std::vector<AddressRange> proxies = {})
      : ledger_(ledger), proxies_(std::move(proxies)) {}

  std::shared_ptr<memory::Account> AccountOf(const grpc::ServerContextBase& context) const {
    return ledger_.AccountOf(NameOf(context));
  }
  // The account of what the peer's sessions reserve. It is separate from that of the peer's calls, so that a session
  // that holds much memory does not leave too little for its own steps.
  std::shared_ptr<memory::Account> SessionAccountOf(const grpc::ServerContextBase& context) const {
    return ledger_.AccountOf("sessions of " + NameOf(context));
  }

 private:
  std::string NameOf(const grpc::ServerContextBase& context) const;

  memory::Ledger& ledger_;
  const std::vector<AddressRange> proxies_;
};

}  // namespace attnd::server
