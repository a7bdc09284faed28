// The system calls of the client's socket for shared memory. None of them blocks or ends because of a signal.
#pragma once

#include <string>

#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::client {

// A non-blocking connection to the server's socket at `path`; an invalid one if nobody listens there, or the listener's
// queue is full.
shm::UniqueFd ConnectSeqpacket(const std::string& path);

enum class Transfer { kDone, kNotYet, kBroken };

// Sends one message, with the descriptor `fd` unless that is -1. kNotYet: poll for POLLOUT.
Transfer SendRequest(int socket, const shm::Request& request, int fd);

// Receives one message. kNotYet: poll for POLLIN. kBroken: the connection has ended, or what came is no reply.
Transfer ReceiveReply(int socket, shm::Reply& reply);

// Whether the other side has closed the connection.
bool HasEnded(int socket);

}  // namespace attnd::client
