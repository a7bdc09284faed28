// A packet of half-precision numbers as floats, with each instruction set's own conversions.
#pragma once

#include "kernel/impl/packet.h"
#include "platform/platform.h"

#if ATTND_X86_64
#include <immintrin.h>
#elif ATTND_AARCH64
#include <arm_neon.h>
#endif

namespace attnd::kernel::ATTND_KERNEL_TAG {

ATTND_INLINE float FloatAt(const std::byte* row, std::int64_t index) {
  float value;
  std::memcpy(&value, row + 4 * index, sizeof value);
  return value;
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
  // Moves exponent and fraction into place and corrects the exponent by a multiplication, which is also exact for
  // subnormals. Infinity and NaN become 2^16 and more; their exponent is then set to all ones.
  const __m128i bits = _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)), _mm_setzero_si128());
  const __m128i magnitude = _mm_slli_epi32(_mm_and_si128(bits, _mm_set1_epi32(0x7fff)), 13);
  const __m128i sign = _mm_slli_epi32(_mm_andnot_si128(_mm_set1_epi32(0x7fff), bits), 16);
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0x1p112f));
  const __m128i special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32((0x7c00 << 13) - 1));
  const __m128i exponent = _mm_and_si128(special, _mm_set1_epi32(0x7f800000));
  return _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(sign, exponent)));
#endif
}

ATTND_INLINE Packet PacketOf(const std::byte* from, tensor::DType dtype) {
  return dtype == tensor::DType::kBF16 ? PacketOfBf16(from) : PacketOfF16(from);
}

// For fewer numbers than a packet has. Never inlined: short rows are rare, and every reader of rows has this call.
[[gnu::noinline]] inline void WidenPart(const std::byte* from, tensor::DType dtype, std::int64_t count, float* to) {
  alignas(64) std::byte halves[2 * kWidth] = {};
  alignas(64) float floats[kWidth];
  std::memcpy(halves, from, static_cast<std::size_t>(2 * count));
  ei::pstore(floats, PacketOf(halves, dtype));
  std::memcpy(to, floats, static_cast<std::size_t>(4 * count));
}

// `count` numbers as floats. `to` must not overlap `from`.
ATTND_INLINE void Widen(const std::byte* from, tensor::DType dtype, std::int64_t count, float* to) {
  if (dtype == tensor::DType::kF32) {
    std::memcpy(to, from, static_cast<std::size_t>(4 * count));
    return;
  }
  if (count < kWidth) return WidenPart(from, dtype, count, to);
  const std::int64_t last = count - kWidth;
  for (std::int64_t i = 0; i < last; i += kWidth) ei::pstoreu(to + i, PacketOf(from + 2 * i, dtype));
  ei::pstoreu(to + last, PacketOf(from + 2 * last, dtype));  // may overlap the packet before it
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
