// Conversion of whole little-endian tensors between an element type and float.
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "tensor/dtype.h"

namespace attnd::tensor {

// Widens exactly. `bytes` has SizeOf(dtype) * floats.size() bytes, of any alignment.
void ConvertToFloat(DType dtype, absl::Span<const std::byte> bytes, absl::Span<float> floats);

// Rounds to nearest even. `bytes` has SizeOf(dtype) * floats.size() bytes, of any alignment.
void ConvertFromFloat(DType dtype, absl::Span<const float> floats, absl::Span<std::byte> bytes);

}  // namespace attnd::tensor
