// One connection for calls over the socket PATH.shm, with one call at a time, on the calling thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "attnd/options.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/keepalive.h"
#include "client/src/local_messages.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Not thread-safe, but for Interrupt.
class LocalConnection {
 public:
  using Clock = std::chrono::steady_clock;

  // What became of an attempt to connect.
  struct Made {
    enum class Outcome : std::uint8_t {
      kGreeted,
      kNobody,      // no such socket, no permission, nobody listens, or too many wait
      kNotOffered,  // an older server, another version, or calls are turned off
      kSilent,      // until `until`
    } outcome;
    std::shared_ptr<LocalConnection> connection = nullptr;  // kGreeted
  };
  // Waits for the server's welcome until `until`, or until `cancellation` (may be null) is cancelled.
  static Made Make(const std::string& path, const std::string& user_agent, const Keepalive& keepalive,
                   Clock::time_point until, const Cancellation* cancellation);

  LocalConnection(shm::UniqueFd socket, const LocalOffer& offer, const Keepalive& keepalive);
  ~LocalConnection();
  LocalConnection(const LocalConnection&) = delete;

  enum class Sent : std::uint8_t {
    kYes,
    kGone,      // the server had closed the connection: it has seen nothing
    kTooLarge,  // the call or its answer fits into no datagram: nothing was sent
  };
  struct Result {
    Sent sent = Sent::kYes;
    absl::StatusOr<ComputeReply> reply = ComputeReply();  // kYes
    bool usable = false;                                  // for another call
    bool silent = false;                                  // the server gave no sign of life
  };
  // Sends a call, and waits for its answer until the deadline, or until it is cancelled. Errors: the server's;
  // DEADLINE_EXCEEDED, CANCELLED; UNAVAILABLE if the connection is lost; INTERNAL for what is no answer to it.
  Result Call(const ComputeRequest& request, const Shape& shape, const WireFields& fields, const CallOptions& options);

  // Ends the connection: what waits on it ends. Thread-safe.
  void Interrupt() const;

 private:
  std::optional<absl::Status> Send(LocalMessage& message, std::optional<Clock::time_point> until, Sent& sent) const;
  // The length of a datagram in buffer_ that is no sign of life, or why there is none. `silent`: the server gave none.
  absl::StatusOr<std::size_t> Receive(std::optional<Clock::time_point> until, bool& silent) const;

  const shm::UniqueFd socket_;
  const LocalOffer offer_;
  const Keepalive keepalive_;
  const std::unique_ptr<unsigned char[]> buffer_;
  std::uint64_t next_id_ = 1;
};

}  // namespace attnd::client
