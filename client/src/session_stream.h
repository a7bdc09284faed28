// The way that a session's messages go.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "attnd/session.h"
#include "client/src/session_messages.h"

namespace attnd::client {

// A gRPC stream, or a connection at PATH.shm; its own end ends the session. Not thread-safe.
class SessionStream {
 public:
  virtual ~SessionStream() = default;

  virtual Transport transport() const = 0;

  // Why it is over; OK while it is not. Nothing is sent or received after that.
  virtual const absl::Status& ended() const = 0;

  // What is not done by then ends the stream with DEADLINE_EXCEEDED.
  virtual void SetDeadline(absl::Time deadline) = 0;

  // Sends the opening, which comes first, or a step. After an error that is not ended() nothing was sent: a step that
  // fits into no message, or for which there is no memory, is RESOURCE_EXHAUSTED.
  virtual absl::Status SendOpening(const SessionRequest& request) = 0;
  virtual absl::Status SendStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number) = 0;

  // What the server says next, with the results of the step that was sent last. Errors: those that end it; INTERNAL for
  // what is no answer, which does not.
  virtual absl::StatusOr<SessionAnswer> Receive() = 0;

  // Ends it for this reason.
  virtual void End(const absl::Status& status) = 0;

  // Says that nothing more comes, and waits for the server's end, which is returned.
  virtual absl::Status Close() = 0;
};

}  // namespace attnd::client
