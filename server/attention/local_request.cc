#include "server/attention/local_request.h"

#include <string>

#include "attnd/v1/local.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/unknown_field_set.h"
#include "google/protobuf/wire_format_lite.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

// The last occurrence of a field, which is the one that counts in protobuf; null if there is none.
const UnknownField* Last(const UnknownFieldSet& fields, int number, UnknownField::Type type) {
  for (int i = fields.field_count() - 1; i >= 0; --i) {
    const UnknownField& field = fields.field(i);
    if (field.number() == number && field.type() == type) return &field;
  }
  return nullptr;
}

}  // namespace

std::optional<RefusedCall> ParseRefusedCall(absl::string_view datagram, std::int64_t max_header_bytes) {
  UnknownFieldSet fields;
  if (!fields.ParseFromArray(datagram.data(), static_cast<int>(datagram.size())) || fields.field_count() != 1) {
    return std::nullopt;
  }
  const UnknownField* const kind =
      Last(fields, v1::LocalRequest::kCallFieldNumber, UnknownField::TYPE_LENGTH_DELIMITED);
  UnknownFieldSet call;
  if (kind == nullptr || !call.ParseFromString(kind->length_delimited())) return std::nullopt;
  const UnknownField* const id = Last(call, v1::LocalCall::kIdFieldNumber, UnknownField::TYPE_VARINT);
  const UnknownField* const request =
      Last(call, v1::LocalCall::kRequestFieldNumber, UnknownField::TYPE_LENGTH_DELIMITED);
  if (request == nullptr) return std::nullopt;
  const grpc::Slice bytes(request->length_delimited());
  const absl::Status status =
      Decode<v1::ComputeAttentionRequest>(grpc::ByteBuffer(&bytes, 1), max_header_bytes).status();
  if (status.ok()) return std::nullopt;  // the fault is outside the request
  return RefusedCall{id == nullptr ? 0 : id->varint(), status};
}

std::optional<absl::string_view> SessionMessageIn(absl::string_view datagram) {
  using google::protobuf::internal::WireFormatLite;
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(datagram.data()),
                                            static_cast<int>(datagram.size()));
  constexpr std::uint32_t kTag =
      WireFormatLite::MakeTag(v1::LocalRequest::kSessionFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  std::uint32_t size = 0;
  if (in.ReadTag() != kTag || !in.ReadVarint32(&size)) return std::nullopt;
  datagram.remove_prefix(static_cast<std::size_t>(in.CurrentPosition()));
  if (size != datagram.size()) return std::nullopt;
  return datagram;
}

}  // namespace attnd::server
