// Opens sessions.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"
#include "attnd/session.h"
#include "client/src/session_stream.h"

namespace attnd::client {

// Opens a session: one attempt, over `stream`. The deadline is that of the opening. Errors: the server's.
absl::StatusOr<std::unique_ptr<Session>> OpenSession(std::shared_ptr<SessionStream> stream,
                                                     const SessionRequest& request, absl::Time deadline);

}  // namespace attnd::client
