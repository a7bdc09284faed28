// System calls on the client's sockets to PATH.shm. None of them blocks or fails because of a signal.
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

// Opens a non-blocking connection to the server's socket at `path`. Returns an invalid descriptor if nothing listens
// there or the listener's queue is full.
shm::UniqueFd ConnectSeqpacket(const std::string& path);

enum class Transfer { kDone, kNotYet, kBroken };

// A fixed-size message without its operands.
shm::Request FixedRequest(shm::Operation operation);

// Sends one fixed-size message, with the descriptor `fd` unless it is -1. kNotYet: poll for POLLOUT.
Transfer SendRequest(int socket, const shm::Request& request, int fd);

// Receives one fixed-size reply. kNotYet: poll for POLLIN. kBroken: the connection has ended, or what arrived is not a
// reply.
Transfer ReceiveReply(int socket, shm::Reply& reply);

// kNotYet: poll for POLLOUT. kTooLarge: the socket does not accept a datagram of this size, or the system has no memory
// for it. kBroken: the connection has ended. In all cases except kDone, nothing was sent.
enum class Delivery : std::uint8_t { kDone, kNotYet, kTooLarge, kBroken };

// Sends one datagram.
Delivery SendDatagram(int socket, absl::Span<const iovec> pieces);
Delivery SendDatagram(int socket, absl::string_view bytes);

// Receives one datagram into `buffer` and sets `bytes` to it. kBroken: the connection has ended, or the datagram is
// larger than the buffer.
Transfer ReceiveDatagram(int socket, absl::Span<unsigned char> buffer, absl::Span<const unsigned char>& bytes);

// The largest datagram that the socket accepts.
std::size_t LargestDatagram(int socket);

// Pings the server, which changes nothing there. kNotYet: nothing was sent because the socket has no room: the server
// is not reading.
Transfer AskForSign(int socket);
// Whether a datagram is the reply to a fixed-size message: a ping reply, unless another request is pending.
bool IsFixedReply(absl::Span<const unsigned char> datagram);

// Ends the connection, even if a forked child has a copy of the socket.
void EndConnection(int socket);

// Whether the other side has closed the connection.
bool HasEnded(int socket);

}  // namespace attnd::client
