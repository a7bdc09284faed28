// Decodes replies of the attention call. Tensors are copied once, or stay in the received bytes.
#pragma once

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Decodes a ComputeAttentionResponse to `request`. Tensors are copied once, to the request's destinations or to new
// memory; if the request asks for segments, the output is not copied. If `fields` places a result in shared memory, the
// message need not contain it. Errors: INTERNAL for bytes that are no reply to `request`; RESOURCE_EXHAUSTED if memory
// for the result cannot be allocated. After an error the destinations' contents are undefined.
absl::StatusOr<ComputeReply> DecodeReply(grpc::ByteBuffer& bytes, const ComputeRequest& request, const Shape& shape,
                                         const WireFields& fields = {});

// A received message: its tensors (fields 100 and 101) separated from its other fields.
struct SplitReply {
  struct Range {
    std::size_t begin, size;
  };
  std::shared_ptr<std::vector<grpc::Slice>> slices;
  std::string small_fields;
  std::optional<Range> log_sum_exp, output;
};

// Records the ranges of the tensors (the last one if a field is repeated, as protobuf specifies) and collects all other
// fields, up to the input's end or limit. Returns false if the input is not a protobuf message.
bool SplitFields(google::protobuf::io::CodedInputStream& input, SplitReply& split);

// Splits a received message. Errors: INTERNAL for bytes that are not a protobuf message.
absl::StatusOr<SplitReply> Split(grpc::ByteBuffer& bytes);

// Copies the bytes of a range to `to`.
void Gather(const SplitReply& split, const SplitReply::Range& range, void* to);

// As DecodeReply, for a ComputeAttentionResponse that is already split.
absl::StatusOr<ComputeReply> Fill(const SplitReply& split, const ComputeRequest& request, const Shape& shape,
                                  const WireFields& fields, bool in_segments);

// A StreamAttentionResponse.
class PieceReply {
 public:
  // Errors: INTERNAL for bytes that are not a StreamAttentionResponse.
  static absl::StatusOr<PieceReply> Read(grpc::ByteBuffer& bytes);

  std::uint64_t id() const { return id_; }
  // The server is stopping.
  bool going_away() const { return going_away_; }

  // As DecodeReply; or the error with which the server answered the piece.
  absl::StatusOr<ComputeReply> Decode(const ComputeRequest& request, const Shape& shape) const;

 private:
  PieceReply() = default;
  std::uint64_t id_ = 0;
  bool going_away_ = false;
  absl::Status status_;
  SplitReply split_;  // small_fields contains only its `result`
};

}  // namespace attnd::client
