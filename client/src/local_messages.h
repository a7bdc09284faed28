// Datagrams of the socket PATH.shm (attnd/v1/local.proto) without copies of tensors.
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

// What the server reckons beside the results of an answer (docs/shared-memory.md, "Calls").
inline constexpr std::size_t kBesideResults = 1024;

std::string EncodeHello(const std::string& user_agent);

// What a server offers on one connection.
struct LocalOffer {
  std::size_t max_message_bytes = 0;
  std::size_t max_calls = 0;
  bool sessions = false;
};

// The answer to a hello; nullopt if it is none, or the server offers no calls of this version.
std::optional<LocalOffer> ReadWelcome(absl::Span<const unsigned char> datagram);

// Ends the call `id`.
std::string EncodeCancel(std::uint64_t id);

// A call. Tensors that `fields` does not name are sent from where they are, so the request must stay until then.
class LocalMessage {
 public:
  LocalMessage(const ComputeRequest& request, const Shape& shape, const WireFields& fields);
  LocalMessage(const LocalMessage&) = delete;

  // Gives it an id and the time that it may take (infinite: without end). Before parts().
  void Address(std::uint64_t id, absl::Duration timeout);
  absl::Span<const iovec> parts() { return request_.Behind(head_); }
  // Of all parts.
  std::size_t size() const { return head_.size() + request_.size(); }
  // At the most, of any answer without an error.
  std::size_t answer_size() const { return answer_bytes_; }

 private:
  std::string head_;  // in front of the request's fields
  DatagramParts request_;
  std::size_t answer_bytes_;
};

// A LocalAnswer in the datagram that it came in.
class LocalAnswer {
 public:
  // Nullopt if it is none. The datagram must stay until Decode.
  static std::optional<LocalAnswer> Read(absl::Span<const unsigned char> datagram);

  std::uint64_t id() const { return id_; }

  // As DecodeReply; or the error that the server answered with.
  absl::StatusOr<ComputeReply> Decode(const ComputeRequest& request, const Shape& shape,
                                      const WireFields& fields) const;

 private:
  std::uint64_t id_ = 0;
  absl::Status status_;
  SplitReply split_;
};

}  // namespace attnd::client
