// Copies rows of a received tensor into memory of any element type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/attention.h"
#include "tensor/dtype.h"

namespace attnd::cache {

// Bytes of an element.
inline std::int64_t ElementSize(tensor::DType dtype) { return static_cast<std::int64_t>(tensor::SizeOf(dtype)); }

// Copies rows of `view`, which must have segments, not pages. Remembers its position: rows in ascending order need no
// search, others take time logarithmic in the number of segments. Not thread-safe; borrows what the view points at.
class RowCopier {
 public:
  // `dim`: elements of a row.
  RowCopier(const kernel::TensorView& view, std::int64_t dim, tensor::DType to);

  // Copies the rows [row, row + rows) to contiguous memory.
  void Copy(std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t rows, std::byte* to);

 private:
  // Copies bytes of the tensor, from position `begin` on, unchanged.
  void CopyBytes(std::int64_t begin, std::int64_t bytes, std::byte* to);
  const kernel::Segment& SegmentOf(std::int64_t byte);

  const kernel::TensorView& view_;
  const std::int64_t dim_;
  const tensor::DType to_;
  std::int64_t segment_ = 0;
  std::vector<std::byte> row_;  // before its conversion
  std::vector<float> floats_;
};

}  // namespace attnd::cache
