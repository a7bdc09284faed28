// A connection to PATH.shm that sends and receives on the calling thread.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "attnd/cancellation.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/keepalive.h"
#include "client/src/local_messages.h"
#include "client/src/shm_socket.h"

namespace attnd::client {

// A connection on which the server has answered the hello. Only Interrupt is thread-safe.
class LocalSocket {
 public:
  using Clock = std::chrono::steady_clock;
  using Until = std::optional<Clock::time_point>;  // nullopt: no limit

  // The outcome of an attempt to connect.
  struct Made {
    enum class Outcome : std::uint8_t {
      kGreeted,
      kNobody,      // no such socket, no permission, no listener, or its queue is full
      kNotOffered,  // an older server, another version, or calls are turned off
      kSilent,      // no reply until `until`, or cancelled
    } outcome;
    std::unique_ptr<LocalSocket> socket = nullptr;  // valid if kGreeted
  };
  // Connects and waits for the server's welcome until `until`, or until `cancellation` (may be null) is cancelled.
  static Made Make(const std::string& path, const std::string& user_agent, const Keepalive& keepalive,
                   Clock::time_point until, const Cancellation* cancellation);

  LocalSocket(shm::UniqueFd socket, const LocalOffer& offer, const Keepalive& keepalive);
  ~LocalSocket();
  LocalSocket(const LocalSocket&) = delete;

  const LocalOffer& offer() const { return offer_; }

  // The largest datagram that both sides accept.
  std::size_t largest() const;

  // Sends one datagram. Waits for room in the socket until `until`; kNotYet: there was none.
  Delivery Send(absl::Span<const iovec> pieces, Until until) const;

  // Receives the next datagram that is not a ping reply; it stays valid until the next call. Errors: DEADLINE_EXCEEDED;
  // UNAVAILABLE if the connection is lost or the server does not reply to a ping; INTERNAL for a datagram larger than
  // the server's offer.
  absl::StatusOr<absl::Span<const unsigned char>> Receive(Until until);

  // Whether Receive failed because the server did not reply to a ping.
  bool silent() const { return silent_; }

  // Registers memory with the server and waits for the reply. Datagrams that arrive meanwhile are kept for Receive.
  // Errors: as Receive.
  absl::StatusOr<shm::Reply> Register(int memory, std::size_t size, Until until);
  // Releases registered memory. Does not wait.
  void Release(const shm::Handle& handle);

  // Ends the connection: functions that wait on it return. Thread-safe.
  void Interrupt() const;

  // In a forked child: closes the child's descriptor only, so that the connection ends when the parent closes it.
  void CloseCopy() { socket_ = shm::UniqueFd(); }

 private:
  // Receives from the socket, ignoring early_.
  absl::StatusOr<absl::Span<const unsigned char>> Next(Until until);

  shm::UniqueFd socket_;
  const LocalOffer offer_;
  const Keepalive keepalive_;
  const std::unique_ptr<unsigned char[]> buffer_;
  bool silent_ = false;
  // Fixed messages are answered in order: the number sent, the number answered, and the number of the registration that
  // waits. All others are pings.
  std::uint64_t asked_ = 0, answered_ = 0;
  std::optional<std::uint64_t> registration_;
  std::deque<std::string> early_;  // arrived while a registration waited
  std::string current_;            // the one that Receive returned last
};

// Interrupts a connection when the call is cancelled, until End. The callback may outlive this object.
class CancelGuard {
 public:
  // `cancellation` may be null.
  CancelGuard(std::shared_ptr<Cancellation> cancellation, const LocalSocket& socket);
  ~CancelGuard() { End(); }
  CancelGuard(const CancelGuard&) = delete;

  // Whether the connection was interrupted.
  bool cancelled() const;

  // Stops watching the cancellation. Returns whether the connection was interrupted.
  bool End();

 private:
  struct Call {
    explicit Call(const LocalSocket& s) : socket(&s) {}
    absl::Mutex mutex;
    const LocalSocket* socket ABSL_GUARDED_BY(mutex);
    bool cancelled ABSL_GUARDED_BY(mutex) = false;
  };
  const std::shared_ptr<Cancellation> cancellation_;
  std::shared_ptr<Call> call_;
  std::int64_t id_ = -1;
};

}  // namespace attnd::client
