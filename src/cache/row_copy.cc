#include "cache/row_copy.h"

#include <algorithm>
#include <cstring>

#include "absl/types/span.h"
#include "tensor/convert.h"

namespace attnd::cache {
RowCopier::RowCopier(const kernel::TensorView& view, std::int64_t dim, tensor::DType to)
    : view_(view), dim_(dim), to_(to) {
  if (view.dtype == to) return;
  row_.resize(static_cast<std::size_t>(dim * ElementSize(view.dtype)));
  floats_.resize(static_cast<std::size_t>(dim));
}

void RowCopier::Copy(std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t rows, std::byte* to) {
  const std::int64_t size = ElementSize(view_.dtype);
  const std::int64_t row_bytes = dim_ * size;
  std::int64_t begin = kernel::PlaceOf(view_, batch, head, row) * size;
  if (view_.dtype == to_ && view_.row_stride == dim_) return CopyBytes(begin, rows * row_bytes, to);
  for (std::int64_t r = 0; r < rows; ++r) {
    if (view_.dtype == to_) {
      CopyBytes(begin, row_bytes, to);
    } else {
      CopyBytes(begin, row_bytes, row_.data());
      tensor::ConvertToFloat(view_.dtype, row_, absl::MakeSpan(floats_));
      tensor::ConvertFromFloat(to_, floats_, {to, static_cast<std::size_t>(dim_ * ElementSize(to_))});
    }
    begin += view_.row_stride * size;
    to += dim_ * ElementSize(to_);
  }
}

void RowCopier::CopyBytes(std::int64_t begin, std::int64_t bytes, std::byte* to) {
  while (bytes > 0) {
    const kernel::Segment& segment = SegmentOf(begin);
    const std::int64_t skipped = begin - static_cast<std::int64_t>(segment.begin);
    const std::int64_t count = std::min(bytes, static_cast<std::int64_t>(segment.size) - skipped);
    std::memcpy(to, segment.data + skipped, static_cast<std::size_t>(count));
    begin += count;
    to += count;
    bytes -= count;
  }
}

// The segment that holds `byte`, a position in the tensor.
const kernel::Segment& RowCopier::SegmentOf(std::int64_t byte) {
  const auto holds = [this, byte](std::int64_t segment) {
    const kernel::Segment& at = view_.segments[segment];
    const auto begin = static_cast<std::int64_t>(at.begin);
    return byte >= begin && byte < begin + static_cast<std::int64_t>(at.size);
  };
  if (!holds(segment_)) {
    const kernel::Segment* const end = view_.segments + view_.segment_count;
    const kernel::Segment* const behind = std::upper_bound(
        view_.segments, end, byte,
        [](std::int64_t at, const kernel::Segment& segment) { return at < static_cast<std::int64_t>(segment.begin); });
    segment_ = behind - view_.segments - 1;
  }
  return view_.segments[segment_];
}

}  // namespace attnd::cache
