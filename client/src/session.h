// Opens sessions.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "attnd/options.h"
#include "attnd/session.h"
#include "client/src/session_stream.h"

namespace attnd::client {

// Opens a session over `stream`, in one attempt. `deadline` applies to the opening only. Errors: the server's; INTERNAL
// for a malformed reply.
absl::StatusOr<std::unique_ptr<Session>> OpenSession(std::shared_ptr<SessionStream> stream,
                                                     const SessionRequest& request, absl::Time deadline);

}  // namespace attnd::client
