// A packet of half-precision numbers as floats: the one place that names each instruction set's own conversions.
#pragma once

#include "kernel/impl/packet.h"
#include "platform/platform.h"

#if ATTND_X86_64
#include <immintrin.h>
#elif ATTND_AARCH64
#include <arm_neon.h>
#endif

namespace attnd::kernel::ATTND_KERNEL_TAG {

ATTND_INLINE float FloatOf(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
ATTND_INLINE std::uint32_t BitsOf(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
ATTND_INLINE float FloatAt(const std::byte* row, std::int64_t index) {
  float value;
  std::memcpy(&value, row + 4 * index, sizeof value);
  return value;
}
ATTND_INLINE std::uint16_t HalfBits(const std::byte* from) {
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return bits;
}

ATTND_INLINE float FloatOfBf16(const std::byte* from) {
  return FloatOf(static_cast<std::uint32_t>(HalfBits(from)) << 16);
}

// Moves exponent and mantissa in place and corrects the exponent by a multiplication, which is exact for subnormals
// too.
ATTND_INLINE float FloatOfF16(const std::byte* from) {
  const std::uint32_t half = HalfBits(from);
  const std::uint32_t magnitude = (half & 0x7fff) << 13;
  const std::uint32_t scaled = BitsOf(FloatOf(magnitude) * 0x1p112f);
  const std::uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000u | magnitude : scaled;
  return FloatOf(special | (half & 0x8000) << 16);
}

// kWidth numbers from any address.
ATTND_INLINE Packet PacketOfBf16(const std::byte* from) {
#if ATTND_AVX512F
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#elif ATTND_AVX2
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#elif ATTND_X86_64
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), bits));
#else
  return vreinterpretq_f32_u32(
      vshll_n_u16(vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(from))), 16));
#endif
}

ATTND_INLINE Packet PacketOfF16(const std::byte* from) {
#if ATTND_AVX512F
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif ATTND_F16C
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif ATTND_AARCH64
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(from))));
#else
  alignas(16) float values[kWidth];
  for (int i = 0; i < kWidth; ++i) values[i] = FloatOfF16(from + 2 * i);
  return ei::pload<Packet>(values);
#endif
}

// `count` numbers as floats.
ATTND_INLINE void Widen(const std::byte* from, tensor::DType dtype, std::int64_t count, float* to) {
  if (dtype == tensor::DType::kF32) {
    std::memcpy(to, from, static_cast<std::size_t>(4 * count));
    return;
  }
  const bool bf16 = dtype == tensor::DType::kBF16;
  std::int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth)
    ei::pstoreu(to + i, bf16 ? PacketOfBf16(from + 2 * i) : PacketOfF16(from + 2 * i));
  for (; i < count; ++i) to[i] = bf16 ? FloatOfBf16(from + 2 * i) : FloatOfF16(from + 2 * i);
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
