#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "attnd/v1/attention.pb.h"
#include "client/src/codec.h"

namespace attnd::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

constexpr std::uint32_t BytesTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}
constexpr std::uint32_t kOutputTag = BytesTag(v1::ComputeAttentionResponse::kOutputFieldNumber);
constexpr std::uint32_t kLogSumExpTag = BytesTag(v1::ComputeAttentionResponse::kLogSumExpFieldNumber);

absl::Status NotAReply(absl::string_view why) {
  return absl::InternalError(absl::StrCat("the server's reply is not an answer to the request: ", why));
}

absl::Duration ToDuration(const google::protobuf::Duration& d) {
  return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
}

// The pieces [begin, begin + size) of `bytes`; `slices` keeps them.
std::vector<Tensor::Segment> Cut(const std::vector<grpc::Slice>& slices, std::size_t begin, std::size_t size) {
  std::vector<Tensor::Segment> segments;
  std::size_t start = 0;  // of the slice, in the message
  for (const grpc::Slice& slice : slices) {
    const std::size_t from = std::max(start, begin);
    const std::size_t to = std::min(start + slice.size(), begin + size);
    if (from < to) segments.emplace_back(slice.begin() + (from - start), to - from);
    start += slice.size();
  }
  return segments;
}

// Reads one reply, field by field as they come.
class Reader {
 public:
  Reader(grpc::ByteBuffer& bytes, const ComputeRequest& request, const Shape& shape)
      : bytes_(bytes), request_(request), shape_(shape) {}

  absl::StatusOr<ComputeReply> Read() {
    if (auto s = ReadFields(); !s.ok()) return s;
    if (auto s = ReadSmallFields(); !s.ok()) return s;
    if (!has_output_) return NotAReply("it has no output");
    if (request_.return_log_sum_exp && !has_log_sum_exp_) return NotAReply("it has no log_sum_exp");
    return std::move(reply_);
  }

 private:
  // Tensors go where they belong; all other fields are collected in small_.
  absl::Status ReadFields() {
    grpc::ProtoBufferReader source(&bytes_);
    CodedInputStream input(&source);
    StringOutputStream small_stream(&small_);
    CodedOutputStream small(&small_stream);
    while (const std::uint32_t tag = input.ReadTag()) {
      if (tag == kOutputTag) {
        if (auto s = ReadOutput(input); !s.ok()) return s;
      } else if (tag == kLogSumExpTag) {
        if (auto s = ReadLogSumExp(input); !s.ok()) return s;
      } else if (!WireFormatLite::SkipField(&input, tag, &small)) {
        return NotAReply("it is no protobuf message");
      }
    }
    if (!input.ConsumedEntireMessage()) return NotAReply("it is no protobuf message");
    return absl::OkStatus();
  }

  absl::Status ReadSize(CodedInputStream& input, const char* field, std::int64_t expected) {
    std::uint32_t size = 0;
    if (!input.ReadVarint32(&size)) return NotAReply("it is no protobuf message");
    if (size == expected) return absl::OkStatus();
    return NotAReply(absl::StrCat(field, ": expected ", expected, " bytes, got ", size));
  }

  absl::Status ReadOutput(CodedInputStream& input) {
    if (auto s = ReadSize(input, "output", shape_.output_bytes); !s.ok()) return s;
    has_output_ = true;
    const int size = static_cast<int>(shape_.output_bytes);
    if (request_.output.data != nullptr) return ReadBytes(input, request_.output.data, size);
    if (request_.output_in_segments) return TakeSegments(input, size);
    std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[static_cast<std::size_t>(size)]);
    if (memory == nullptr)
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
    reply_.output = Tensor(shape_.output_dtype, shape_.output_sizes,
                           Tensor::Segment(memory.get(), static_cast<std::size_t>(size)), memory);
    return ReadBytes(input, memory.get(), size);
  }

  absl::Status TakeSegments(CodedInputStream& input, int size) {
    const auto begin = static_cast<std::size_t>(input.CurrentPosition());
    if (!input.Skip(size)) return NotAReply("its output is cut short");
    auto slices = std::make_shared<std::vector<grpc::Slice>>();
    if (!bytes_.Dump(slices.get()).ok()) return NotAReply("its bytes cannot be read");
    reply_.output =
        Tensor(shape_.output_dtype, shape_.output_sizes, Cut(*slices, begin, static_cast<std::size_t>(size)), slices);
    return absl::OkStatus();
  }

  absl::Status ReadLogSumExp(CodedInputStream& input) {
    // A server may send an empty one when none was asked for; anything else must have the size of one.
    const std::int64_t expected = request_.return_log_sum_exp ? shape_.log_sum_exp_bytes : 0;
    if (auto s = ReadSize(input, "log_sum_exp", expected); !s.ok()) return s;
    if (expected == 0) return absl::OkStatus();
    has_log_sum_exp_ = true;
    if (request_.log_sum_exp.data != nullptr) {
      return ReadBytes(input, request_.log_sum_exp.data, static_cast<int>(expected));
    }
    reply_.log_sum_exp.resize(static_cast<std::size_t>(expected) / sizeof(float));
    return ReadBytes(input, reply_.log_sum_exp.data(), static_cast<int>(expected));
  }

  absl::Status ReadBytes(CodedInputStream& input, void* to, int size) {
    return input.ReadRaw(to, size) ? absl::OkStatus() : NotAReply("it is cut short");
  }

  absl::Status ReadSmallFields() {
    v1::ComputeAttentionResponse message;
    if (!message.ParseFromString(small_)) return NotAReply("it is no ComputeAttentionResponse");
    if (static_cast<int>(message.dtype()) != static_cast<int>(shape_.output_dtype)) {
      return NotAReply(absl::StrCat("dtype: expected ", v1::Dtype_Name(static_cast<int>(shape_.output_dtype)), ", got ",
                                    v1::Dtype_Name(message.dtype())));
    }
    reply_.dtype = shape_.output_dtype;
    reply_.version = message.version();
    reply_.content_hash = std::move(*message.mutable_content_hash());
    reply_.queue_time = ToDuration(message.queue_time());
    reply_.compute_time = ToDuration(message.compute_time());
    return absl::OkStatus();
  }

  grpc::ByteBuffer& bytes_;
  const ComputeRequest& request_;
  const Shape& shape_;
  std::string small_;
  bool has_output_ = false;
  bool has_log_sum_exp_ = false;
  ComputeReply reply_;
};

}  // namespace

absl::StatusOr<ComputeReply> DecodeReply(grpc::ByteBuffer& bytes, const ComputeRequest& request, const Shape& shape) {
  return Reader(bytes, request, shape).Read();
}

}  // namespace attnd::client
