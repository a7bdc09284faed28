// The interface to a session's stream of messages.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "attnd/session.h"
#include "client/src/session_messages.h"

namespace attnd::client {

// A gRPC stream or a connection to PATH.shm. The session ends when the stream ends. Not thread-safe.
class SessionStream {
 public:
  virtual ~SessionStream() = default;

  virtual Transport transport() const = 0;

  // Why the stream has ended; OK while it is open. After its end nothing is sent or received.
  virtual const absl::Status& ended() const = 0;

  // Operations that are not done by `deadline` end the stream with DEADLINE_EXCEEDED.
  virtual void SetDeadline(absl::Time deadline) = 0;

  // Sends the opening (first) or a step. If one fails and ended() is OK, nothing was sent: RESOURCE_EXHAUSTED for a
  // step that does not fit into a message, or for which there is no memory.
  virtual absl::Status SendOpening(const SessionRequest& request) = 0;
  virtual absl::Status SendStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number) = 0;

  // Receives the server's next message, with the results of the last step sent. Errors: those that end the stream;
  // INTERNAL for a malformed message, which does not end it.
  virtual absl::StatusOr<SessionAnswer> Receive() = 0;

  // Ends the stream with `status`.
  virtual void End(const absl::Status& status) = 0;

  // Tells the server that nothing more follows, waits for it to end the stream, and returns its status.
  virtual absl::Status Close() = 0;
};

}  // namespace attnd::client
