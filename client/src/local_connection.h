// A connection to the socket PATH.shm for attention calls: one call at a time, on the calling thread.
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
    kGone,      // the server had closed the connection: it did not receive the call
    kTooLarge,  // the call or its reply does not fit into a datagram: nothing was sent
  };
  struct Result {
    Sent sent = Sent::kYes;
    absl::StatusOr<ComputeReply> reply = ComputeReply();  // valid if kYes
    bool usable = false;                                  // can be used for another call
    bool silent = false;                                  // the server did not reply to a ping
  };
  // Sends a call and waits for its reply, until the deadline or the cancellation. Errors: the server's;
  // DEADLINE_EXCEEDED; CANCELLED; UNAVAILABLE if the connection is lost; INTERNAL for a datagram that is not a reply to
  // the call.
  Result Call(const ComputeRequest& request, const Shape& shape, const WireFields& fields, const CallOptions& options);

 private:
  const std::unique_ptr<LocalSocket> socket_;
  std::uint64_t next_id_ = 1;
};

}  // namespace attnd::client
