// A session's stream over its own connection to the socket PATH.shm.
#pragma once

#include <memory>

#include "attnd/options.h"
#include "client/src/local_calls.h"
#include "client/src/session_stream.h"

namespace attnd::client {

// Connects for the session that `request` opens. Returns null if the session must use gRPC: the server cannot be
// reached there, offers no sessions or shares no memory, or a message of the session may not fit into a datagram.
std::shared_ptr<SessionStream> ConnectLocalSession(LocalCalls& calls, const SessionRequest& request,
                                                   const CallOptions& options);

}  // namespace attnd::client
