#include "tensor/convert.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "tensor/half.h"

namespace attnd::tensor {

static_assert(std::endian::native == std::endian::little, "tensors are little-endian, and so must be the machine");

namespace {

template <typename Widen>
void WidenAll(absl::Span<const std::byte> bytes, absl::Span<float> floats, Widen widen) {
  for (std::size_t i = 0; i < floats.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof(bits));
    floats[i] = widen(bits);
  }
}

template <typename Narrow>
void NarrowAll(absl::Span<const float> floats, absl::Span<std::byte> bytes, Narrow narrow) {
  for (std::size_t i = 0; i < floats.size(); ++i) {
    const std::uint16_t bits = narrow(floats[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
  }
}

}  // namespace

void ConvertToFloat(DType dtype, absl::Span<const std::byte> bytes, absl::Span<float> floats) {
  switch (dtype) {
    case DType::kF32:
      if (!floats.empty()) std::memcpy(floats.data(), bytes.data(), floats.size() * sizeof(float));
      return;
    case DType::kF16:
      return WidenAll(bytes, floats, FloatFromHalf);
    case DType::kBF16:
      return WidenAll(bytes, floats, FloatFromBFloat16);
  }
}

void ConvertFromFloat(DType dtype, absl::Span<const float> floats, absl::Span<std::byte> bytes) {
  switch (dtype) {
    case DType::kF32:
      if (!floats.empty()) std::memcpy(bytes.data(), floats.data(), floats.size() * sizeof(float));
      return;
    case DType::kF16:
      return NarrowAll(floats, bytes, HalfFromFloat);
    case DType::kBF16:
      return NarrowAll(floats, bytes, BFloat16FromFloat);
  }
}

}  // namespace attnd::tensor
