#include "server/wire/field_scanner.h"

#include <limits>

namespace attnd::server {
namespace {

// protobuf's limit on nested groups.
constexpr int kMaxDepth = 100;

// A varint of at most `max_bytes` bytes; bits beyond the 64th are dropped.
std::optional<std::uint64_t> ReadVarint(SegmentCursor& cursor, int max_bytes) {
  std::uint64_t value = 0;
  for (int i = 0; i < max_bytes; ++i) {
    std::uint8_t byte;
    if (!cursor.Next(byte)) return std::nullopt;
    value |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// Skips the value of a field that is not a group.
bool SkipScalar(SegmentCursor& cursor, WireType type) {
  switch (type) {
    case WireType::kVarint:
      return ReadVarint(cursor, 10).has_value();
    case WireType::kFixed64:
      return cursor.Skip(8);
    case WireType::kFixed32:
      return cursor.Skip(4);
    case WireType::kBytes: {
      const std::optional<std::size_t> length = ReadLength(cursor);
      return length.has_value() && cursor.Skip(*length);
    }
    case WireType::kStartGroup:
    case WireType::kEndGroup:
      break;
  }
  return false;
}

}  // namespace

bool SegmentCursor::Next(std::uint8_t& byte) {
  if (AtEnd()) return false;
  byte = std::to_integer<std::uint8_t>(segments_[index_].data[offset_]);
  Advance(1);
  return true;
}

void SegmentCursor::Advance(std::size_t count) {
  offset_ += count;
  position_ += count;
  SkipEmpty();
}

void SegmentCursor::SkipEmpty() {
  while (index_ < segments_.size() && offset_ == segments_[index_].size) {
    ++index_;
    offset_ = 0;
  }
}

std::optional<Tag> ReadTag(SegmentCursor& cursor) {
  const std::optional<std::uint64_t> value = ReadVarint(cursor, 5);
  if (!value.has_value()) return std::nullopt;
  const std::uint32_t tag = static_cast<std::uint32_t>(*value);
  if ((tag >> 3) == 0 || (tag & 7) > 5) return std::nullopt;
  return Tag{tag >> 3, static_cast<WireType>(tag & 7)};
}

std::optional<std::size_t> ReadLength(SegmentCursor& cursor) {
  constexpr std::uint64_t kSlopBytes = 16;
  const std::optional<std::uint64_t> length = ReadVarint(cursor, 5);
  if (!length.has_value() || *length > std::numeric_limits<std::int32_t>::max() - kSlopBytes) return std::nullopt;
  return static_cast<std::size_t>(*length);
}

bool SkipField(SegmentCursor& cursor, Tag tag) {
  if (tag.type != WireType::kStartGroup) return SkipScalar(cursor, tag.type);
  for (int depth = 1; depth > 0;) {
    const std::optional<Tag> inner = ReadTag(cursor);
    if (!inner.has_value()) return false;
    if (inner->type == WireType::kStartGroup) {
      if (++depth > kMaxDepth) return false;
    } else if (inner->type == WireType::kEndGroup) {
      --depth;
    } else if (!SkipScalar(cursor, inner->type)) {
      return false;
    }
  }
  return true;
}

}  // namespace attnd::server
