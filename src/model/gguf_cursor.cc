#include "model/gguf_cursor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attnd::model {
namespace {

constexpr std::int64_t kBlock = 64 * 1024;

}  // namespace

GgufCursor::GgufCursor(const files::ByteSource& source)
    : source_(source), end_(std::min(source.size(), kMaxHeaderBytes)) {}

void GgufCursor::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void GgufCursor::Take(absl::Span<std::byte> out) {
  if (!status_.ok()) return;
  if (static_cast<std::int64_t>(out.size()) > remaining()) {
    const char* const what = end_ == source_.size() ? "the file ends inside its header" : "the header is too long";
    return Fail(absl::InvalidArgumentError(absl::StrCat(what, " (byte ", end_, ")")));
  }
  while (!out.empty()) {
    const std::int64_t block_end = block_begin_ + static_cast<std::int64_t>(block_.size());
    if (position_ < block_begin_ || position_ >= block_end) {
      block_begin_ = position_;
      block_.resize(static_cast<std::size_t>(std::min(kBlock, remaining())));
      if (absl::Status read = source_.ReadAt(block_begin_, absl::MakeSpan(block_)); !read.ok()) {
        block_.clear();
        return Fail(std::move(read));
      }
      continue;
    }
    const std::size_t count = std::min(out.size(), static_cast<std::size_t>(block_end - position_));
    std::memcpy(out.data(), block_.data() + (position_ - block_begin_), count);
    out.remove_prefix(count);
    position_ += static_cast<std::int64_t>(count);
  }
}

std::string GgufCursor::String(std::int64_t max_size) { return Text(Number<std::uint64_t>(), max_size); }

std::string GgufCursor::Text(std::uint64_t size, std::int64_t max_size) {
  if (size > static_cast<std::uint64_t>(std::min(max_size, remaining()))) {
    Fail(absl::InvalidArgumentError(absl::StrCat("string: expected at most ", std::min(max_size, remaining()),
                                                 " bytes, got a length of ", size, " at byte ", position_)));
  }
  if (!status_.ok()) return {};
  std::string text(static_cast<std::size_t>(size), '\0');
  Take(absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size()));
  return text;
}

void GgufCursor::SkipString() { Skip(Number<std::uint64_t>(), 1); }

void GgufCursor::Skip(std::uint64_t count, std::int64_t size) {
  if (!status_.ok()) return;
  if (count > static_cast<std::uint64_t>(remaining() / size)) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("count: expected at most ", remaining() / size,
                                                " in the rest of the header, got ", count, " at byte ", position_)));
  }
  position_ += static_cast<std::int64_t>(count) * size;
}

}  // namespace attnd::model
