// One connection at PATH.shm that sends and receives on the calling thread.
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

// A connection on which the server has answered the hello. Not thread-safe, but for Interrupt.
class LocalSocket {
 public:
  using Clock = std::chrono::steady_clock;
  using Until = std::optional<Clock::time_point>;  // nullopt: without end

  // What became of an attempt to connect.
  struct Made {
    enum class Outcome : std::uint8_t {
      kGreeted,
      kNobody,      // no such socket, no permission, nobody listens, or too many wait
      kNotOffered,  // an older server, another version, or calls are turned off
      kSilent,      // until `until`
    } outcome;
    std::unique_ptr<LocalSocket> socket = nullptr;  // kGreeted
  };
  // Waits for the server's welcome until `until`, or until `cancellation` (may be null) is cancelled.
  static Made Make(const std::string& path, const std::string& user_agent, const Keepalive& keepalive,
                   Clock::time_point until, const Cancellation* cancellation);

  LocalSocket(shm::UniqueFd socket, const LocalOffer& offer, const Keepalive& keepalive);
  ~LocalSocket();
  LocalSocket(const LocalSocket&) = delete;

  const LocalOffer& offer() const { return offer_; }

  // The largest datagram that both sides take.
  std::size_t largest() const;

  // Sends one datagram. Waits for room until `until`; kNotYet: there was none.
  Delivery Send(absl::Span<const iovec> pieces, Until until) const;

  // The next datagram that is no sign of life; it stays until the next call. Errors: DEADLINE_EXCEEDED; UNAVAILABLE if
  // the connection is lost; INTERNAL for more bytes than the server has offered.
  absl::StatusOr<absl::Span<const unsigned char>> Receive(Until until);

  // Whether a Receive has ended because the server gave no sign of life.
  bool silent() const { return silent_; }

  // Hands memory to the server, and waits for its answer. What else arrives meanwhile is kept for Receive. Errors:
  // those of Receive.
  absl::StatusOr<shm::Reply> Register(int memory, std::size_t size, Until until);
  // Takes it back; waits for nothing.
  void Release(const shm::Handle& handle);

  // Ends the connection: what waits on it ends. Thread-safe.
  void Interrupt() const;

  // In a forked child: closes its copy, so that the connection ends with the parent.
  void CloseCopy() { socket_ = shm::UniqueFd(); }

 private:
  // Receive, from the socket itself.
  absl::StatusOr<absl::Span<const unsigned char>> Next(Until until);

  shm::UniqueFd socket_;
  const LocalOffer offer_;
  const Keepalive keepalive_;
  const std::unique_ptr<unsigned char[]> buffer_;
  bool silent_ = false;
  // Fixed messages are answered in their order: how many were sent, how many answered, and the number of the
  // registration that waits. Every other one is a sign of life.
  std::uint64_t asked_ = 0, answered_ = 0;
  std::optional<std::uint64_t> registration_;
  std::deque<std::string> early_;  // arrived while a registration waited
  std::string current_;            // what Receive gave out of them last
};

// Interrupts a connection when the call is cancelled, until this is over. The callback may outlive this.
class CancelGuard {
 public:
  // `cancellation` may be null.
  CancelGuard(std::shared_ptr<Cancellation> cancellation, const LocalSocket& socket);
  ~CancelGuard() { End(); }
  CancelGuard(const CancelGuard&) = delete;

  // Whether the connection was interrupted.
  bool cancelled() const;

  // From now on it is not. Whether it was.
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
