#include "client/src/decode.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/messages/attention.pb.h"
#include "client/src/proto_time.h"
#include "client/src/protobuf_wire.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

constexpr std::uint32_t kOutputTag = BytesTag(v1::ComputeAttentionResponse::kOutputFieldNumber);
constexpr std::uint32_t kLogSumExpTag = BytesTag(v1::ComputeAttentionResponse::kLogSumExpFieldNumber);
static_assert(kOutputTag == BytesTag(v1::StreamAttentionResponse::kOutputFieldNumber) &&
              kLogSumExpTag == BytesTag(v1::StreamAttentionResponse::kLogSumExpFieldNumber));

absl::Status NotAReply(absl::string_view why) {
  return absl::InternalError(absl::StrCat("the server's reply is not an answer to the request: ", why));
}

// Reads the length of a bytes field into `range` and skips its bytes.
bool SkipBytes(CodedInputStream& input, SplitReply::Range& range) {
  std::uint32_t size = 0;
  if (!input.ReadVarint32(&size) || size > static_cast<std::uint32_t>(INT32_MAX)) return false;
  range = {static_cast<std::size_t>(input.CurrentPosition()), size};
  return input.Skip(static_cast<int>(size));
}

// The segments that contain a range of the message.
std::vector<Tensor::Segment> Cut(const std::vector<grpc::Slice>& slices, const SplitReply::Range& range) {
  std::vector<Tensor::Segment> segments;
  std::size_t start = 0;  // of the slice, in the message
  for (const grpc::Slice& slice : slices) {
    const std::size_t from = std::max(start, range.begin);
    const std::size_t to = std::min(start + slice.size(), range.begin + range.size);
    if (from < to) segments.emplace_back(slice.begin() + (from - start), to - from);
    start += slice.size();
  }
  return segments;
}

absl::Status CheckSize(const char* field, std::int64_t expected, std::size_t got) {
  if (got == static_cast<std::size_t>(expected)) return absl::OkStatus();
  return NotAReply(absl::StrCat(field, ": expected ", expected, " bytes, got ", got));
}

absl::Status FillOutput(const SplitReply& split, const ComputeRequest& request, const Shape& shape, bool in_segments,
                        ComputeReply& reply) {
  if (!split.output.has_value()) return NotAReply("it has no output");
  if (auto s = CheckSize("output", shape.output_bytes, split.output->size); !s.ok()) return s;
  if (request.output.data != nullptr) {
    Gather(split, *split.output, request.output.data);
    return absl::OkStatus();
  }
  if (in_segments) {
    reply.output = Tensor(shape.output_dtype, shape.output_sizes, Cut(*split.slices, *split.output), split.slices);
    return absl::OkStatus();
  }
  const std::size_t size = split.output->size;
  std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[size]);
  if (memory == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
  reply.output = Tensor(shape.output_dtype, shape.output_sizes, Tensor::Segment(memory.get(), size), memory);
  Gather(split, *split.output, memory.get());
  return absl::OkStatus();
}

absl::Status FillLogSumExp(const SplitReply& split, const ComputeRequest& request, const Shape& shape,
                           ComputeReply& reply) {
  // If log_sum_exp was not requested, a server may still send an empty one. Otherwise its size must match.
  const std::int64_t expected = request.return_log_sum_exp ? shape.log_sum_exp_bytes : 0;
  if (!split.log_sum_exp.has_value()) return expected == 0 ? absl::OkStatus() : NotAReply("it has no log_sum_exp");
  if (auto s = CheckSize("log_sum_exp", expected, split.log_sum_exp->size); !s.ok()) return s;
  if (expected == 0) return absl::OkStatus();
  void* to = request.log_sum_exp.data;
  if (to == nullptr) {
    reply.log_sum_exp.resize(static_cast<std::size_t>(expected) / sizeof(float));
    to = reply.log_sum_exp.data();
  }
  Gather(split, *split.log_sum_exp, to);
  return absl::OkStatus();
}

absl::Status FillSmallFields(const std::string& bytes, const Shape& shape, ComputeReply& reply) {
  v1::ComputeAttentionResponse message;
  if (!message.ParseFromString(bytes)) return NotAReply("it is no ComputeAttentionResponse");
  if (static_cast<int>(message.dtype()) != static_cast<int>(shape.output_dtype)) {
    return NotAReply(absl::StrCat("dtype: expected ", v1::Dtype_Name(static_cast<int>(shape.output_dtype)), ", got ",
                                  v1::Dtype_Name(message.dtype())));
  }
  reply.dtype = shape.output_dtype;
  reply.version = message.version();
  reply.content_hash = std::move(*message.mutable_content_hash());
  reply.queue_time = ToDuration(message.queue_time());
  reply.compute_time = ToDuration(message.compute_time());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SplitReply> Split(grpc::ByteBuffer& bytes) {
  SplitReply split;
  split.slices = std::make_shared<std::vector<grpc::Slice>>();
  grpc::ProtoBufferReader source(&bytes);
  CodedInputStream input(&source);
  if (!SplitFields(input, split)) return NotAReply("it is no protobuf message");
  if (!bytes.Dump(split.slices.get()).ok()) return NotAReply("its bytes cannot be read");
  return split;
}

void Gather(const SplitReply& split, const SplitReply::Range& range, void* to) {
  auto* at = static_cast<unsigned char*>(to);
  for (const Tensor::Segment& segment : Cut(*split.slices, range)) {
    std::memcpy(at, segment.data(), segment.size());
    at += segment.size();
  }
}

bool SplitFields(CodedInputStream& input, SplitReply& split) {
  StringOutputStream small_stream(&split.small_fields);
  CodedOutputStream small(&small_stream);
  while (const std::uint32_t tag = input.ReadTag()) {
    if (tag == kOutputTag || tag == kLogSumExpTag) {
      SplitReply::Range& range = (tag == kOutputTag ? split.output : split.log_sum_exp).emplace();
      if (!SkipBytes(input, range)) return false;
    } else if (!WireFormatLite::SkipField(&input, tag, &small)) {
      return false;
    }
  }
  return input.ConsumedEntireMessage();
}

absl::StatusOr<ComputeReply> Fill(const SplitReply& split, const ComputeRequest& request, const Shape& shape,
                                  const WireFields& fields, bool in_segments) {
  ComputeReply reply;
  if (auto s = FillSmallFields(split.small_fields, shape, reply); !s.ok()) return s;
  if (!fields.output.has_value()) {
    if (auto s = FillOutput(split, request, shape, in_segments, reply); !s.ok()) return s;
  }
  if (!fields.log_sum_exp.has_value()) {
    if (auto s = FillLogSumExp(split, request, shape, reply); !s.ok()) return s;
  }
  return reply;
}

absl::StatusOr<ComputeReply> DecodeReply(grpc::ByteBuffer& bytes, const ComputeRequest& request, const Shape& shape,
                                         const WireFields& fields) {
  const absl::StatusOr<SplitReply> split = Split(bytes);
  if (!split.ok()) return split.status();
  return Fill(*split, request, shape, fields, request.output_in_segments);
}

absl::StatusOr<PieceReply> PieceReply::Read(grpc::ByteBuffer& bytes) {
  absl::StatusOr<SplitReply> split = Split(bytes);
  if (!split.ok()) return split.status();
  v1::StreamAttentionResponse message;
  if (!message.ParseFromString(split->small_fields)) return NotAReply("it is no StreamAttentionResponse");
  PieceReply reply;
  reply.id_ = message.id();
  reply.going_away_ = message.going_away();
  reply.status_ = StatusOf(message);
  reply.split_ = *std::move(split);
  reply.split_.small_fields = message.result().SerializeAsString();
  return reply;
}

absl::StatusOr<ComputeReply> PieceReply::Decode(const ComputeRequest& request, const Shape& shape) const {
  if (!status_.ok()) return status_;
  return Fill(split_, request, shape, {}, request.output_in_segments);
}

}  // namespace attnd::client
