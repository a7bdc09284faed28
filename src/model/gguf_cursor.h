// Reads a GGUF header field by field from a source, a block at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "files/byte_source.h"

namespace attnd::model {

// Keeps the first error. After it, every read returns zeros and every skip does nothing, so a caller may read several
// fields and check once. Never reads or allocates beyond the source, or beyond kMaxHeaderBytes. Not thread-safe.
class GgufCursor {
 public:
  // The largest vocabularies take a few megabytes.
  static constexpr std::int64_t kMaxHeaderBytes = std::int64_t{1} << 28;

  // Borrows `source`.
  explicit GgufCursor(const files::ByteSource& source);

  // A little-endian number.
  template <typename T>
  T Number() {
    static_assert(std::is_arithmetic_v<T>);
    T value{};
    Take(absl::MakeSpan(reinterpret_cast<std::byte*>(&value), sizeof(value)));
    return value;
  }

  // A 64-bit length, then that many bytes. Fails if the length exceeds `max_size`.
  std::string String(std::int64_t max_size);

  // `size` bytes. Fails if `size` exceeds `max_size`.
  std::string Text(std::uint64_t size, std::int64_t max_size);

  void SkipString();

  // Skips `count` elements of `size` bytes each.
  void Skip(std::uint64_t count, std::int64_t size);

  // Bytes of the header that may still follow: an upper bound on the number of fields left.
  std::int64_t remaining() const { return end_ - position_; }
  std::int64_t position() const { return position_; }

  const absl::Status& status() const { return status_; }
  void Fail(absl::Status status);

 private:
  void Take(absl::Span<std::byte> out);

  const files::ByteSource& source_;
  const std::int64_t end_;
  std::int64_t position_ = 0;
  std::vector<std::byte> block_;
  std::int64_t block_begin_ = 0;
  absl::Status status_;
};

}  // namespace attnd::model
