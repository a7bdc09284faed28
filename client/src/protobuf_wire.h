// Writes and reads parts of protobuf messages without a message object, so that tensors are not copied.
#pragma once

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace attnd::client {

// The tag of a field of type bytes, string or message; its length follows it.
constexpr std::uint32_t BytesTag(int field) {
  using google::protobuf::internal::WireFormatLite;
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

inline void AppendVarint(std::uint64_t value, std::string& to) {
  std::uint8_t bytes[10];
  const std::uint8_t* end = google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(value, bytes);
  to.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(end - bytes));
}

// Calls `each` with the tag of every field, until the input's end or limit. `each` returns false for a malformed field;
// then, or if the input is malformed, this returns false.
template <typename Each>
bool ForEachField(google::protobuf::io::CodedInputStream& input, const Each& each) {
  while (const std::uint32_t tag = input.ReadTag()) {
    if (!each(tag)) return false;
  }
  return input.ConsumedEntireMessage();
}

// Reads a length, then calls `read` with the input limited to that length.
template <typename Read>
bool Within(google::protobuf::io::CodedInputStream& input, const Read& read) {
  std::uint32_t size = 0;
  if (!input.ReadVarint32(&size) || size > static_cast<std::uint32_t>(input.BytesUntilLimit())) return false;
  const google::protobuf::io::CodedInputStream::Limit limit = input.PushLimit(static_cast<int>(size));
  if (!read()) return false;
  input.PopLimit(limit);
  return true;
}

}  // namespace attnd::client
