// Conversion of single half-precision numbers, as bit patterns, to and from float. Widening is exact. Rounding is to
// nearest, ties to even, whatever the floating-point environment. A NaN stays a NaN of the same sign.
//
// always_inline: builds of the kernel for several instruction sets use these and must not share a symbol.
#pragma once

#include <bit>
#include <cstdint>

namespace attnd::tensor {

// IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits.
[[gnu::always_inline]] constexpr float FloatFromHalf(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t fraction = half & 0x3FFU;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  // Zero and subnormals: fraction * 2^-24, which float holds exactly.
  const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

// Magnitudes of 65520 and more become infinity.
[[gnu::always_inline]] constexpr std::uint16_t HalfFromFloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13) & 0x3FFU));
  if (magnitude >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // 2^16 and more
  std::uint32_t kept;                                                               // the result before rounding
  std::uint32_t dropped;  // what rounding takes off, as a fraction of `unit`
  std::uint32_t unit;
  if (magnitude >= 0x38800000U) {  // 2^-14 and more: normal
    kept = (magnitude - (112U << 23)) >> 13;
    dropped = magnitude & 0x1FFFU;
    unit = 1U << 13;
  } else if (magnitude >= 0x33000000U) {  // 2^-25 and more: subnormal, in units of 2^-24
    const std::uint32_t significand = (magnitude & 0x7FFFFFU) | 0x800000U;
    const std::uint32_t shift = 126U - (magnitude >> 23);  // 14..24
    kept = significand >> shift;
    unit = 1U << shift;
    dropped = significand & (unit - 1);
  } else {
    return static_cast<std::uint16_t>(sign);
  }
  const std::uint32_t half_unit = unit >> 1;
  const bool up = dropped > half_unit || (dropped == half_unit && (kept & 1U) != 0);
  return static_cast<std::uint16_t>(sign | (kept + (up ? 1U : 0U)));  // a carry moves into the exponent, as it should
}

// bfloat16: the upper half of a float.
[[gnu::always_inline]] constexpr float FloatFromBFloat16(std::uint16_t bfloat16) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bfloat16) << 16);
}

[[gnu::always_inline]] constexpr std::uint16_t BFloat16FromFloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace attnd::tensor
