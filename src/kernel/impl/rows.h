// Reads tensor rows of any dtype, alignment and segmentation, and writes output rows.
#pragma once

#include <bit>

#include "kernel/impl/widen.h"
#include "tensor/half.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

ATTND_INLINE std::int64_t ElementSize(tensor::DType dtype) { return static_cast<std::int64_t>(tensor::SizeOf(dtype)); }

// tensor::HalfFromFloat in a form that vectorises: 0.23 ns a number instead of 0.59 with AVX-512. Every NaN becomes the
// same one, except for its sign. Below the smallest normal half, adding 0.5 leaves the rounded subnormal in the low
// bits.
ATTND_INLINE std::uint16_t HalfOf(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000;
  const std::uint32_t magnitude = bits & 0x7fffffff;
  std::uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;
  } else if (magnitude >= 0x477ff000) {
    half = 0x7c00;
  } else if (magnitude >= 0x38800000) {
    half = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  } else {
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  }
  return static_cast<std::uint16_t>(sign | half);
}

// Prefetch distance in rows while packing: heads are often too short for the processor to detect a pattern.
inline constexpr std::int64_t kRowsAhead = 16;

// Prefetches the row that is kRowsAhead rows after `row`. Rows are `bytes` long and `stride` bytes apart. The row may
// not exist: only its address is computed, and nothing is read.
ATTND_INLINE void PrefetchAhead(const void* row, std::int64_t stride, std::int64_t bytes) {
  const auto ahead = reinterpret_cast<std::uintptr_t>(row) + static_cast<std::uintptr_t>(kRowsAhead * stride);
  for (std::int64_t at = 0; at < bytes; at += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(ahead + static_cast<std::uintptr_t>(at)), 0, 2);
  }
}

// Finds the rows of one head of a tensor, in segments or pages. Remembers its position: rows in ascending order need no
// search, others take time logarithmic in the number of segments.
class RowReader {
 public:
  RowReader(const TensorView& view, std::int64_t batch, std::int64_t head)
      : view_(view), row_bytes_(view.row_stride * ElementSize(view.dtype)) {
    const std::int64_t size = ElementSize(view.dtype);
    if (view.pages == nullptr) {
      first_ = PlaceOf(view, batch, head, 0) * size;
    } else {
      pages_ = view.pages[batch];
      in_page_ = (view.page_begin + head * view.head_stride) * size;
    }
  }

  std::int64_t row_bytes() const { return row_bytes_; }  // from one row to the next

  // The first `size` bytes of a row: in place if one segment holds them, else gathered into `buffer`.
  ATTND_INLINE const std::byte* Bytes(std::int64_t row, std::int64_t size, std::byte* buffer) {
    const std::byte* in_place = InPlace(row, size);
    if (in_place == nullptr) return Gather(row, size, buffer);
    PrefetchAhead(in_place, row_bytes_, size);
    return in_place;
  }

  // The same bytes in place; null if no single segment or page holds them. `size` may span several rows.
  ATTND_INLINE const std::byte* InPlace(std::int64_t row, std::int64_t size) {
    const std::int64_t position = BytesBefore(row);
    if (position < begin_ || position >= end_) Seek(position);
    return position + size <= end_ ? data_ + (position - begin_) : nullptr;
  }

  // Number of rows from `row` on, at most `rows`, whose first `size` bytes lie in the current segment or page,
  // row_bytes() apart. InPlace must have found `row` just before, so there is at least one.
  ATTND_INLINE std::int64_t RowsInPlace(std::int64_t row, std::int64_t rows, std::int64_t size) const {
    if (row_bytes_ <= 0) return 1;
    const std::int64_t room = end_ - BytesBefore(row) - size;
    return room >= (rows - 1) * row_bytes_ ? rows : room / row_bytes_ + 1;
  }

  // `count` elements of a row as floats: in place if they are fp32 and lie in one segment, else written to `buffer`,
  // which has room for 2 * count floats.
  ATTND_INLINE const float* Floats(std::int64_t row, std::int64_t count, float* buffer) {
    const std::int64_t size = ElementSize(view_.dtype);
    const std::byte* bytes = Bytes(row, count * size, reinterpret_cast<std::byte*>(buffer + count));
    if (view_.dtype == tensor::DType::kF32) return reinterpret_cast<const float*>(bytes);
    Widen(bytes, view_.dtype, count, buffer);
    return buffer;
  }

  // Like Bytes, for a row that is not in place.
  [[gnu::noinline]] const std::byte* Gather(std::int64_t row, std::int64_t size, std::byte* buffer) {
    const std::int64_t position = BytesBefore(row);
    for (std::int64_t done = 0; done < size;) {
      if (position + done >= end_) Seek(position + done);
      const std::int64_t piece = Min(size - done, end_ - (position + done));
      std::memcpy(buffer + done, data_ + (position + done - begin_), static_cast<std::size_t>(piece));
      done += piece;
    }
    return buffer;
  }

 private:
  // Position of a row in the tensor, in bytes. For a tensor in pages: as if this head's rows in all pages were
  // contiguous.
  std::int64_t BytesBefore(std::int64_t row) const { return first_ + row * row_bytes_; }

  // Moves to the segment or page that holds `position`.
  [[gnu::noinline]] void Seek(std::int64_t position) {
    if (pages_ != nullptr) {
      const std::int64_t page_bytes = view_.page_rows * row_bytes_;
      const std::int64_t page = position / page_bytes;
      data_ = pages_[page] + in_page_;
      begin_ = page * page_bytes;
      end_ = begin_ + page_bytes;
      return;
    }
    const std::int64_t next = index_ + 1;
    if (next < view_.segment_count && Holds(next, position)) return Enter(next);
    // The last segment that begins at or before `position`: if several begin there, all but the last are empty.
    std::int64_t low = 0;
    for (std::int64_t high = view_.segment_count; high - low > 1;) {
      const std::int64_t middle = low + (high - low) / 2;
      (BeginOf(middle) <= position ? low : high) = middle;
    }
    Enter(low);
  }

  std::int64_t BeginOf(std::int64_t index) const { return static_cast<std::int64_t>(view_.segments[index].begin); }
  std::int64_t EndOf(std::int64_t index) const {
    return BeginOf(index) + static_cast<std::int64_t>(view_.segments[index].size);
  }
  bool Holds(std::int64_t index, std::int64_t position) const {
    return BeginOf(index) <= position && position < EndOf(index);
  }
  void Enter(std::int64_t index) {
    index_ = index;
    data_ = view_.segments[index].data;
    begin_ = BeginOf(index);
    end_ = EndOf(index);
  }

  const TensorView& view_;
  const std::int64_t row_bytes_;
  std::int64_t first_ = 0;                   // position of row 0
  const std::byte* const* pages_ = nullptr;  // null: segments
  std::int64_t in_page_ = 0;                 // bytes before this head in a page
  std::int64_t index_ = -1;                  // the current segment
  const std::byte* data_ = nullptr;          // data of the current segment or page...
  std::int64_t begin_ = 0;                   // ...which holds these positions
  std::int64_t end_ = 0;
};

// The first `dim` numbers of a row as floats, padded with zeros to whole packets. `gather` has room for them.
ATTND_INLINE void CopyRow(RowReader& reader, tensor::DType dtype, std::int64_t row, std::int64_t dim, std::byte* gather,
                          float* to) {
  const std::int64_t padded = RoundUp(dim, kWidth);
  if (padded != dim) ei::pstore(to + padded - kWidth, ei::pset1<Packet>(0.0f));
  Widen(reader.Bytes(row, dim * ElementSize(dtype), gather), dtype, dim, to);
}

ATTND_INLINE std::byte* OutputRow(const Attention& a, std::int64_t batch, std::int64_t head, std::int64_t row) {
  return a.out.data + PlaceOf(a.out, batch, head, row) * ElementSize(a.out.dtype);
}

// Writes values[i] * factor as the output's dtype. `values` is aligned and padded to whole packets.
inline void WriteRow(const float* values, float factor, std::int64_t count, tensor::DType dtype, std::byte* to) {
  const Packet scale = ei::pset1<Packet>(factor);
  std::int64_t i = 0;
  if (dtype == tensor::DType::kF32) {
    for (; i + kWidth <= count; i += kWidth) {
      ei::pstoreu(reinterpret_cast<float*>(to + 4 * i), ei::pmul(ei::pload<Packet>(values + i), scale));
    }
  }
  for (; i < count; i += kWidth) {
    alignas(64) float block[kWidth];
    ei::pstore(block, ei::pmul(ei::pload<Packet>(values + i), scale));
    const std::int64_t n = Min(kWidth, count - i);
    if (dtype == tensor::DType::kF32) {
      std::memcpy(to + 4 * i, block, static_cast<std::size_t>(4 * n));
      continue;
    }
    for (std::int64_t j = 0; j < n; ++j) {
      const std::uint16_t bits = dtype == tensor::DType::kF16 ? HalfOf(block[j]) : tensor::BFloat16FromFloat(block[j]);
      std::memcpy(to + 2 * (i + j), &bits, 2);
    }
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
