// Element types of tensors. Elements are little-endian, on the wire and in files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace attnd::tensor {

enum class DType : std::uint8_t { kF32, kF16, kBF16 };

// Bytes of one element. always_inline: builds of the kernel for several instruction sets use it and must not share a
// symbol.
[[gnu::always_inline]] constexpr std::size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// The name used in messages and in safetensors headers: "F32", "F16", "BF16".
constexpr const char* NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
  }
  return "?";
}

// The type with that NameOf; nullopt for any other name.
constexpr std::optional<DType> DTypeFromName(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == NameOf(dtype)) return dtype;
  }
  return std::nullopt;
}

}  // namespace attnd::tensor
