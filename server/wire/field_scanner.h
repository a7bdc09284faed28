// A reader of protobuf's wire format over received slices, which finds a message's top-level fields without copying
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "kernel/attention.h"

namespace attnd::server {

// A position in a sequence of segments. Not thread-safe; borrows the segments.
class SegmentCursor {
 public:
  explicit SegmentCursor(absl::Span<const kernel::Segment> segments) : segments_(segments) { SkipEmpty(); }

  bool AtEnd() const { return index_ == segments_.size(); }
  // Bytes from the start of the first segment.
  std::size_t position() const { return position_; }

  // The next byte; false at the end.
  bool Next(std::uint8_t& byte);

  // Passes the next `count` bytes to `take` as segments, in order. If fewer are left, consumes them and returns false.
  template <typename Take>
  bool Consume(std::size_t count, Take take) {
    while (count > 0) {
      if (AtEnd()) return false;
      const kernel::Segment rest = Rest();
      const std::size_t size = rest.size < count ? rest.size : count;
      take(kernel::Segment{rest.data, size});
      Advance(size);
      count -= size;
    }
    return true;
  }
  bool Skip(std::size_t count) {
    return Consume(count, [](kernel::Segment) {});
  }

 private:
  // The rest of the current segment; never empty.
  kernel::Segment Rest() const { return {segments_[index_].data + offset_, segments_[index_].size - offset_}; }
  void Advance(std::size_t count);
  void SkipEmpty();

  absl::Span<const kernel::Segment> segments_;
  std::size_t index_ = 0;
  std::size_t offset_ = 0;
  std::size_t position_ = 0;
};

// All but kEndGroup begin a field.
enum class WireType : std::uint8_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5
};

struct Tag {
  std::uint32_t number;
  WireType type;
};

// These accept exactly what protobuf's own parser accepts: a tag in at most five bytes, its surplus bits dropped, its
// field number not zero and its wire type known; a length in at most five bytes, below 2 GiB less 16 bytes; a varint in
// at most ten bytes; groups within protobuf's nesting limit. They check nothing else, so a caller who lets protobuf
// parse the fields skipped here gets protobuf's answer.
std::optional<Tag> ReadTag(SegmentCursor& cursor);
std::optional<std::size_t> ReadLength(SegmentCursor& cursor);

// Skips the value of a field whose tag was read, groups included; false if it is malformed.
bool SkipField(SegmentCursor& cursor, Tag tag);

}  // namespace attnd::server
