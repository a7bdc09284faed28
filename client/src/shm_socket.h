// The system calls of the client's sockets at PATH.shm. None of them blocks or ends because of a signal.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::client {

// A non-blocking connection to the server's socket at `path`; an invalid one if nobody listens there, or the listener's
// queue is full.
shm::UniqueFd ConnectSeqpacket(const std::string& path);

enum class Transfer { kDone, kNotYet, kBroken };

// A fixed message without its operands.
shm::Request FixedRequest(shm::Operation operation);

// Sends one message, with the descriptor `fd` unless that is -1. kNotYet: poll for POLLOUT.
Transfer SendRequest(int socket, const shm::Request& request, int fd);

// Receives one message. kNotYet: poll for POLLIN. kBroken: the connection has ended, or what came is no reply.
Transfer ReceiveReply(int socket, shm::Reply& reply);

// kNotYet: poll for POLLOUT. kTooLarge: the socket never takes a datagram of this size, or the system has no memory for
// it. kBroken: the connection has ended. All but kDone: nothing was sent.
enum class Delivery : std::uint8_t { kDone, kNotYet, kTooLarge, kBroken };

// Sends one datagram.
Delivery SendDatagram(int socket, absl::Span<const iovec> pieces);
Delivery SendDatagram(int socket, absl::string_view bytes);

// Receives one datagram into `buffer`; `bytes` is what came, in there. kBroken: the connection has ended, or the
// datagram is larger than the buffer.
Transfer ReceiveDatagram(int socket, absl::Span<unsigned char> buffer, absl::Span<const unsigned char>& bytes);

// The largest datagram that the socket takes.
std::size_t LargestDatagram(int socket);

// Asks a server at PATH.shm for a sign of life, which changes nothing there. kNotYet: nothing was sent, as there is no
// room for it: the server reads nothing.
Transfer AskForSign(int socket);
// Whether a datagram answers a fixed message: with the sign, where nothing else was asked.
bool IsFixedReply(absl::Span<const unsigned char> datagram);

// Ends the connection, also where a forked child has a copy of the socket.
void EndConnection(int socket);

// Whether the other side has closed the connection.
bool HasEnded(int socket);

}  // namespace attnd::client
