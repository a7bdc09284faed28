// Datagrams of the socket PATH.shm (attnd/v1/local.proto), encoded and decoded without copying tensors.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attnd/attention.h"
#include "client/src/datagram_parts.h"
#include "client/src/decode.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Bytes that the server reserves in a reply in addition to its results (docs/shared-memory.md, "Calls").
inline constexpr std::size_t kBesideResults = 1024;

std::string EncodeHello(const std::string& user_agent);

// The server's limits for one connection.
struct LocalOffer {
  std::size_t max_message_bytes = 0;
  std::size_t max_calls = 0;
  bool sessions = false;
};

// Reads the reply to a hello. nullopt if `datagram` is not one, or the server does not offer calls of this version.
std::optional<LocalOffer> ReadWelcome(absl::Span<const unsigned char> datagram);

// Cancels the call `id`.
std::string EncodeCancel(std::uint64_t id);

// An attention call. Tensors that `fields` does not place in shared memory are sent from the request's memory, so the
// request must stay valid until the datagram is sent.
class LocalMessage {
 public:
  LocalMessage(const ComputeRequest& request, const Shape& shape, const WireFields& fields);
  LocalMessage(const LocalMessage&) = delete;

  // Sets the call's id and timeout (infinite: no timeout). Call it before parts().
  void Address(std::uint64_t id, absl::Duration timeout);
  absl::Span<const iovec> parts() { return request_.Behind(head_); }
  // Bytes of all parts.
  std::size_t size() const { return head_.size() + request_.size(); }
  // Upper bound of the bytes of a reply without an error.
  std::size_t answer_size() const { return answer_bytes_; }

 private:
  std::string head_;  // precedes the request's fields
  DatagramParts request_;
  std::size_t answer_bytes_;
};

// A LocalAnswer in its received datagram.
class LocalAnswer {
 public:
  // Returns nullopt if `datagram` is not a LocalAnswer. The datagram must stay valid until Decode.
  static std::optional<LocalAnswer> Read(absl::Span<const unsigned char> datagram);

  std::uint64_t id() const { return id_; }

  // As DecodeReply; or the error that the server returned.
  absl::StatusOr<ComputeReply> Decode(const ComputeRequest& request, const Shape& shape,
                                      const WireFields& fields) const;

 private:
  std::uint64_t id_ = 0;
  absl::Status status_;
  SplitReply split_;
};

}  // namespace attnd::client
