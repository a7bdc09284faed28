// The attention call's replies: protobuf bytes whose tensors are copied once, or stay where they arrived.
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

// A ComputeAttentionResponse to `request`: tensors are copied once, to the request's destinations or new memory, or not
// at all if the request asks for segments. The output is not expected if `fields` says where the server put it. Errors:
// INTERNAL for bytes that are no answer to `request`; RESOURCE_EXHAUSTED if memory for the result cannot be had. After
// an error the destinations' contents are undefined.
absl::StatusOr<ComputeReply> DecodeReply(grpc::ByteBuffer& bytes, const ComputeRequest& request, const Shape& shape,
                                         const WireFields& fields = {});

// A received message, its tensors (the fields 100 and 101) apart from its other fields.
struct SplitReply {
  struct Range {
    std::size_t begin, size;
  };
  std::shared_ptr<std::vector<grpc::Slice>> slices;
  std::string small_fields;
  std::optional<Range> log_sum_exp, output;
};

// Notes where the tensors are (of a repeated one the last, as protobuf has it) and collects all other fields, up to the
// input's end or limit. False if that is no protobuf message.
bool SplitFields(google::protobuf::io::CodedInputStream& input, SplitReply& split);

// A message that has arrived. Errors: INTERNAL for bytes that are no protobuf message.
absl::StatusOr<SplitReply> Split(grpc::ByteBuffer& bytes);

// Copies the bytes of a range to `to`.
void Gather(const SplitReply& split, const SplitReply::Range& range, void* to);

// A split ComputeAttentionResponse as DecodeReply gives it.
absl::StatusOr<ComputeReply> Fill(const SplitReply& split, const ComputeRequest& request, const Shape& shape,
                                  const WireFields& fields, bool in_segments);

// A StreamAttentionResponse.
class PieceReply {
 public:
  // Errors: INTERNAL for bytes that are none.
  static absl::StatusOr<PieceReply> Read(grpc::ByteBuffer& bytes);

  std::uint64_t id() const { return id_; }
  // The server is stopping.
  bool going_away() const { return going_away_; }

  // As DecodeReply; or the error that the server answered the piece with.
  absl::StatusOr<ComputeReply> Decode(const ComputeRequest& request, const Shape& shape) const;

 private:
  PieceReply() = default;
  std::uint64_t id_ = 0;
  bool going_away_ = false;
  absl::Status status_;
  SplitReply split_;  // small_fields are those of its `result`
};

}  // namespace attnd::client
