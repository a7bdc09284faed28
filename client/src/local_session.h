// The stream of a session over the socket PATH.shm: a connection of its own.
#pragma once

#include <memory>

#include "attnd/options.h"
#include "client/src/local_calls.h"
#include "client/src/session_stream.h"

namespace attnd::client {

// Connects for the session that `request` opens; null if it is to go by gRPC, as calls do then: the server offers no
// sessions there, shares no memory, or messages of the session may fit into no datagram.
std::shared_ptr<SessionStream> ConnectLocalSession(LocalCalls& calls, const SessionRequest& request,
                                                   const CallOptions& options);

}  // namespace attnd::client
