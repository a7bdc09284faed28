// What the socket PATH.shm offers in addition to the fixed messages of attnd/shm/protocol.h: calls in datagrams
// (attnd/v1/local.proto). The listener moves the datagrams; a LocalCalls handles the calls.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

// The largest datagram in either direction.
inline constexpr std::size_t kMaxDatagramBytes = 65536;

// The other end of a connection, as the kernel recorded it when the connection was made. The pid is 0 if the process is
// in a PID namespace that this one cannot see.
struct Peer {
  uid_t uid = static_cast<uid_t>(-1);
  pid_t pid = 0;
};

// The peer's name in the ledger: all processes of one user count as one peer.
inline std::string UserName(const Peer& peer) { return "uid:" + std::to_string(peer.uid); }

// Sends datagrams to a connection's peer.
class DatagramSink {
 public:
  virtual ~DatagramSink() = default;
  // Sends a datagram of at most kMaxDatagramBytes, or keeps it until the socket has room. Does nothing once the
  // connection is closed. `held` is released once the datagram is sent or lost. Never waits. Thread-safe.
  virtual void Send(std::string datagram, std::shared_ptr<const void> held) = 0;
  // Pause stops receiving from the peer, after the datagram being taken, until Resume. The two must alternate.
  // Thread-safe.
  virtual void Pause() = 0;
  virtual void Resume() = 0;
};

// Handles the datagrams of one connection. Both functions are called on the listener's thread, and must not block.
class LocalConnection {
 public:
  virtual ~LocalConnection() = default;
  // Takes a datagram that is not a fixed message. An error is the reason to end the connection.
  virtual absl::Status Take(absl::string_view datagram) = 0;
  // The connection has ended, and nothing more can be sent: ends what is under way. Called once.
  virtual void Close() = 0;
};

// Thread-safe.
class LocalCalls {
 public:
  virtual ~LocalCalls() = default;
  virtual std::shared_ptr<LocalConnection> Connect(const Peer& peer, std::shared_ptr<DatagramSink> sink) = 0;
};

}  // namespace attnd::server
