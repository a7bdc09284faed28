#include "server/wire/codec.h"

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "errors/field_error.h"
#include "errors/shown.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/unknown_field_set.h"
#include "google/protobuf/wire_format_lite.h"
#include "server/wire/field_scanner.h"

namespace attnd::server {

static_assert(
    static_cast<int>(v1::ComputeAttentionRequest::kQFieldNumber) == v1::StreamAttentionRequest::kQFieldNumber &&
    static_cast<int>(v1::ComputeAttentionRequest::kKFieldNumber) == v1::StreamAttentionRequest::kKFieldNumber &&
    static_cast<int>(v1::ComputeAttentionRequest::kVFieldNumber) == v1::StreamAttentionRequest::kVFieldNumber);
static_assert(static_cast<int>(v1::ComputeAttentionResponse::kLogSumExpFieldNumber) ==
                  v1::StreamAttentionResponse::kLogSumExpFieldNumber &&
              static_cast<int>(v1::ComputeAttentionResponse::kOutputFieldNumber) ==
                  v1::StreamAttentionResponse::kOutputFieldNumber);

namespace {

using google::protobuf::internal::WireFormatLite;

absl::Status Malformed(std::size_t position) {
  return errors::InvalidField("request", "a protobuf message", absl::StrCat("malformed protobuf at byte ", position));
}

absl::Status HeaderTooLarge(std::int64_t max_header_bytes) {
  return errors::FieldError(absl::StatusCode::kResourceExhausted, "request",
                            absl::StrCat("at most ", max_header_bytes, " bytes beside q, k and v (max_header_bytes)"),
                            "more");
}

// The path of the first string in `fields`, which are those of a `type`, that is not UTF-8; empty if there is none.
std::string FieldWithoutUtf8(const google::protobuf::Descriptor& type,
                             const google::protobuf::UnknownFieldSet& fields) {
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields.field(i);
    const google::protobuf::FieldDescriptor* const known = type.FindFieldByNumber(field.number());
    if (known == nullptr || field.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const std::string& bytes = field.length_delimited();
    if (known->type() == google::protobuf::FieldDescriptor::TYPE_STRING && errors::Utf8Prefix(bytes) < bytes.size()) {
      return known->name();
    }
    google::protobuf::UnknownFieldSet inner;
    if (known->message_type() == nullptr || !inner.ParseFromString(bytes)) continue;
    const std::string path = FieldWithoutUtf8(*known->message_type(), inner);
    if (!path.empty()) return absl::StrCat(known->name(), ".", path);
  }
  return "";
}

// The tensor that the field's bytes belong to; null if the field is not a tensor.
TensorBytes* TensorOf(Tag tag, RequestTensors& tensors) {
  if (tag.type != WireType::kBytes) return nullptr;
  switch (tag.number) {
    case v1::ComputeAttentionRequest::kQFieldNumber:
      return &tensors.q;
    case v1::ComputeAttentionRequest::kKFieldNumber:
      return &tensors.k;
    case v1::ComputeAttentionRequest::kVFieldNumber:
      return &tensors.v;
    default:
      return nullptr;
  }
}

// Reads the length and the bytes of a tensor. Replaces an earlier field with the same number, as protobuf does for
// singular scalars.
bool ReadTensor(SegmentCursor& cursor, TensorBytes& tensor) {
  const std::optional<std::size_t> length = ReadLength(cursor);
  if (!length.has_value()) return false;
  tensor.segments.clear();
  tensor.size = *length;
  return cursor.Consume(*length, [&tensor](kernel::Segment piece) { tensor.Add(piece); });
}

std::vector<kernel::Segment> SegmentsOf(const std::vector<grpc::Slice>& slices) {
  std::vector<kernel::Segment> segments;
  segments.reserve(slices.size());
  for (const grpc::Slice& slice : slices) {
    segments.push_back({reinterpret_cast<const std::byte*>(slice.begin()), slice.size()});
  }
  return segments;
}

// The tag and length before a bytes field.
grpc::Slice BytesPrefix(int field_number, std::size_t length) {
  std::array<std::uint8_t, 15> prefix;  // at most: a tag of 5 bytes, a length of 10
  std::uint8_t* end =
      WireFormatLite::WriteTagToArray(field_number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED, prefix.data());
  end = google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(length, end);
  return grpc::Slice(prefix.data(), static_cast<std::size_t>(end - prefix.data()));
}

}  // namespace

absl::StatusOr<SplitMessage> Split(const grpc::ByteBuffer& message, std::int64_t max_header_bytes) {
  SplitMessage split;
  if (!message.Valid() || !message.Dump(&split.slices).ok()) return Malformed(0);
  split.received = ReceivedBytes(static_cast<std::int64_t>(message.Length()));
  const std::vector<kernel::Segment> segments = SegmentsOf(split.slices);
  SegmentCursor cursor(segments);
  SegmentCursor small_from = cursor;  // the first byte read that is not copied yet and not part of a tensor
  const auto copy_small = [&](std::size_t end) {
    small_from.Consume(end - small_from.position(), [&split](kernel::Segment piece) {
      split.small_fields.append(reinterpret_cast<const char*>(piece.data), piece.size);
    });
  };
  while (!cursor.AtEnd()) {
    const std::size_t begin = cursor.position();
    const std::optional<Tag> tag = ReadTag(cursor);
    if (!tag.has_value()) return Malformed(begin);
    if (TensorBytes* const tensor = TensorOf(*tag, split.tensors)) {
      copy_small(begin);
      if (!ReadTensor(cursor, *tensor)) return Malformed(begin);
      small_from = cursor;
      continue;
    }
    if (!SkipField(cursor, *tag)) return Malformed(begin);
    const std::size_t small_bytes = split.small_fields.size() + (cursor.position() - small_from.position());
    if (small_bytes > static_cast<std::size_t>(max_header_bytes)) {
      return HeaderTooLarge(max_header_bytes);
    }
  }
  copy_small(cursor.position());
  return split;
}

absl::Status NotParsed(const google::protobuf::Descriptor& type, const std::string& small_fields) {
  google::protobuf::UnknownFieldSet fields;
  if (fields.ParseFromString(small_fields)) {
    const std::string path = FieldWithoutUtf8(type, fields);
    if (!path.empty()) return errors::InvalidField(path, "UTF-8", "a string that is not");
  }
  return errors::InvalidField("request", absl::StrCat("a ", type.name()), "malformed protobuf");
}

grpc::ByteBuffer EncodeReply(const google::protobuf::MessageLite& header, Buffer log_sum_exp, Buffer output) {
  std::vector<grpc::Slice> slices;
  slices.emplace_back(header.SerializeAsString());
  const auto append = [&slices](int field_number, Buffer buffer) {
    if (buffer.size() == 0) return;
    slices.push_back(BytesPrefix(field_number, buffer.size()));
    slices.push_back(std::move(buffer).ToSlice());
  };
  append(v1::ComputeAttentionResponse::kLogSumExpFieldNumber, std::move(log_sum_exp));
  append(v1::ComputeAttentionResponse::kOutputFieldNumber, std::move(output));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace attnd::server
