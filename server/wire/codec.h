// Messages of attention calls and sessions, without copying their tensors.
//
// They are ordinary protobuf. A request's small fields go through protobuf's parser; q, k and v become views of the
// slices that gRPC received. A reply is a short slice that protobuf wrote, followed by slices that own the kernel's
// results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/v1/attention.pb.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "kernel/attention.h"
#include "server/wire/buffer.h"
#include "server/wire/received_bytes.h"

namespace attnd::server {

// The bytes of one tensor, in segments.
struct TensorBytes {
  // Appends a segment, and sets its `begin`.
  void Add(kernel::Segment piece) {
    piece.begin = segments.empty() ? 0 : segments.back().begin + segments.back().size;
    segments.push_back(piece);
  }

  std::vector<kernel::Segment> segments;
  std::size_t size = 0;
};

struct RequestTensors {
  TensorBytes q;
  TensorBytes k;
  TensorBytes v;
};

// A received message of any type whose top-level fields 100, 101 and 102 are the bytes of q, k and v, split into these
// and the other fields. Keeps alive the slices that the tensors are views of; moving it leaves the views valid.
struct SplitMessage {
  std::vector<grpc::Slice> slices;
  std::string small_fields;  // all other fields, in order, as received
  RequestTensors tensors;
  ReceivedBytes received;
};

// Errors: INVALID_ARGUMENT for malformed protobuf, RESOURCE_EXHAUSTED if the small fields are larger than
// `max_header_bytes`. Whether the small fields match the message's type is left to protobuf's parser.
absl::StatusOr<SplitMessage> Split(const grpc::ByteBuffer& message, std::int64_t max_header_bytes);

// A message with its small fields parsed. `header` holds no tensors.
template <typename Message>
struct Decoded {
  SplitMessage split;
  Message header;
  const RequestTensors& tensors() const { return split.tensors; }
};

// The INVALID_ARGUMENT error for `small_fields` that do not parse as `type`. It names the path of a string that is not
// UTF-8, otherwise "request".
absl::Status NotParsed(const google::protobuf::Descriptor& type, const std::string& small_fields);

// Errors: as Split, and INVALID_ARGUMENT where protobuf's own parser would fail.
template <typename Message>
absl::StatusOr<Decoded<Message>> Decode(const grpc::ByteBuffer& message, std::int64_t max_header_bytes) {
  absl::StatusOr<SplitMessage> split = Split(message, max_header_bytes);
  if (!split.ok()) return std::move(split).status();
  Decoded<Message> decoded{*std::move(split), {}};
  if (!decoded.header.ParseFromString(decoded.split.small_fields)) {
    return NotParsed(*Message::descriptor(), decoded.split.small_fields);
  }
  decoded.split.small_fields.clear();
  return decoded;
}

// The reply on the wire, fields in order of number. `header` is a ComputeAttentionResponse, StreamAttentionResponse or
// SessionReply without tensors. An empty buffer is left out, as protobuf does. The buffers are sent without a copy;
// their memory and reservations are released once they are sent.
grpc::ByteBuffer EncodeReply(const google::protobuf::MessageLite& header, Buffer log_sum_exp, Buffer output);

}  // namespace attnd::server
