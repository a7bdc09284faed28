// Parts of messages that are written and read without a message object, as their tensors stay where they are.
#pragma once

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace attnd::client {

// What stands before a field of type bytes, string or message, and before its length.
constexpr std::uint32_t BytesTag(int field) {
  using google::protobuf::internal::WireFormatLite;
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

inline void AppendVarint(std::uint64_t value, std::string& to) {
  std::uint8_t bytes[10];
  const std::uint8_t* end = google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(value, bytes);
  to.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(end - bytes));
}

}  // namespace attnd::client
