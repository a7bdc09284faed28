// What the socket PATH.shm offers beside the fixed messages of attnd/shm/protocol.h: calls in datagrams
// (attnd/v1/local.proto). The listener moves the datagrams; whoever takes the calls is given to it as a LocalCalls.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace attnd::server {

// Largest datagram either way.
inline constexpr std::size_t kMaxDatagramBytes = 65536;

// Who is at the other end of a connection, as the kernel had it when the connection was made. The pid is 0 if its
// process is in a PID namespace that this one cannot see.
struct Peer {
  uid_t uid = static_cast<uid_t>(-1);
  pid_t pid = 0;
};

// The peer as a ledger names it: processes of one user are one.
inline std::string UserName(const Peer& peer) { return "uid:" + std::to_string(peer.uid); }

// Where the datagrams for a connection's peer go.
class DatagramSink {
 public:
  virtual ~DatagramSink() = default;
  // Sends a datagram of at most kMaxDatagramBytes, or keeps it until the socket has room. Nothing happens once the
  // connection is closed. `held` goes once the datagram is sent, or lost. Never waits. Thread-safe.
  virtual void Send(std::string datagram, std::shared_ptr<const void> held) = 0;
  // Takes no more datagrams from the peer, beside one that is being taken, until Resume. Both at most once in turn.
  // Thread-safe.
  virtual void Pause() = 0;
  virtual void Resume() = 0;
};

// What one connection asks for by its datagrams. Both functions are called on the listener's thread, and must not
// block.
class LocalConnection {
 public:
  virtual ~LocalConnection() = default;
  // Takes a datagram that is no fixed message. An error says why the connection is to be ended.
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
