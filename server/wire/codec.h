// ComputeAttention's messages, without copying their tensors.
//
// They are ordinary protobuf. A request's small fields go through protobuf's parser; q, k and v become views of the
// slices that gRPC received. A reply is a short slice that protobuf wrote, and slices that own the kernel's output.
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

// The bytes of one tensor, in pieces.
struct TensorBytes {
  // Adds a piece behind the others.
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

// A received message of any type whose top-level fields 100, 101 and 102 are the bytes of q, k and v, cut into these
// and the other fields. Keeps alive the slices that the tensors are views of; moving it leaves the views valid.
struct SplitMessage {
  std::vector<grpc::Slice> slices;
  std::string small_fields;  // every other field, in order, as it came
  RequestTensors tensors;
  ReceivedBytes received;
};

// Errors: INVALID_ARGUMENT for bytes that are no protobuf message, RESOURCE_EXHAUSTED where the small fields are larger
// than `max_header_bytes`. Whether the small fields suit the message's type is for protobuf's parser to say.
absl::StatusOr<SplitMessage> Split(const grpc::ByteBuffer& message, std::int64_t max_header_bytes);

// A message with its small fields parsed. `header` holds no tensors.
template <typename Message>
struct Decoded {
  SplitMessage split;
  Message header;
  const RequestTensors& tensors() const { return split.tensors; }
};

// Why `small_fields` are no message of `type`, as INVALID_ARGUMENT: a string that is no UTF-8, by its path, or
// "request".
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

// The reply on the wire, fields in order of number: `header` is a ComputeAttentionResponse or StreamAttentionResponse
// without tensors; an empty buffer is left out, as protobuf does. The buffers travel without a copy, and their
// memory and leases are released once it is sent.
grpc::ByteBuffer EncodeReply(const google::protobuf::MessageLite& header, Buffer log_sum_exp, Buffer output);

}  // namespace attnd::server
