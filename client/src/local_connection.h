// One connection for calls over the socket PATH.shm, with one call at a time, on the calling thread.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/options.h"
#include "client/src/local_socket.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Not thread-safe.
class LocalConnection {
 public:
  explicit LocalConnection(std::unique_ptr<LocalSocket> socket) : socket_(std::move(socket)) {}
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

 private:
  const std::unique_ptr<LocalSocket> socket_;
  std::uint64_t next_id_ = 1;
};

}  // namespace attnd::client
