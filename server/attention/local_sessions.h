// The interface that a connection of a local socket uses for its session.
#pragma once

#include <memory>

#include "absl/strings/string_view.h"
#include "server/shm/local_calls.h"

namespace attnd::server {

// The session of one connection. All functions are called on the connection's thread; none throws.
class LocalSession {
 public:
  virtual ~LocalSession() = default;
  // Takes the next SessionRequest, serialized.
  virtual void Take(absl::string_view message) = 0;
  // The client has sent LocalSessionClose: no more requests come. The session ends once its steps are answered.
  virtual void Close() = 0;
  // The connection has ended.
  virtual void Drop() = 0;
};

// Thread-safe.
class LocalSessions {
 public:
  virtual ~LocalSessions() = default;
  // Begins a session whose answers go to `sink`. Returns null if it cannot begin; the error has then been sent to
  // `sink`.
  virtual std::shared_ptr<LocalSession> Begin(const Peer& peer, const std::shared_ptr<DatagramSink>& sink) = 0;
};

}  // namespace attnd::server
