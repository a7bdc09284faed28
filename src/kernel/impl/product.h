// What the micro-kernels multiply: floats, or pairs of bf16 summed in fp32 (AVX512_BF16's vdpbf16ps, Arm's BFDOT).
//
// A pair of bf16 numbers takes the place of a float everywhere: a panel then holds [head_dim / 2][keys] pairs along the
// head dimension, a chunk of values [keys / 2][columns] pairs along the keys. So packing, loading and broadcasting are
// the same for both, and only the multiply-add differs.
#pragma once

#include "kernel/impl/rows.h"
#include "platform/platform.h"

#if ATTND_NEON_BF16
#include <arm_bf16.h>
#endif

// Whether this build has bf16 products.
#define ATTND_BF16_PRODUCTS (ATTND_AVX512BF16 || ATTND_NEON_BF16)

namespace attnd::kernel::ATTND_KERNEL_TAG {

enum class Product : std::uint8_t { kF32, kBF16 };

inline constexpr bool kHasBf16 = ATTND_BF16_PRODUCTS;

// AMX multiplies tiles of 16 rows of pairs by tiles of 16 pairs of 16 columns (amx.h).
#if ATTND_AMX_BF16
inline constexpr bool kHasAmx = true;
#else
inline constexpr bool kHasAmx = false;
#endif
inline constexpr std::int64_t kAmxRows = 16;
inline constexpr std::int64_t kAmxPairs = 16;
template <Product kProduct>
inline constexpr bool kUsesAmx = kHasAmx&& kProduct == Product::kBF16;

// Rows of a tile that are computed together, so that their scores stay in the first-level cache; for AMX also a
// multiple of kAmxRows.
template <Product kProduct>
inline constexpr std::int64_t kRowBlock = kUsesAmx<kProduct> ? 48 : 24;
inline constexpr std::int64_t kMostRows = kHasAmx ? kRowBlock<Product::kBF16> : kRowBlock<Product::kF32>;
static_assert(kRowBlock<Product::kF32> % kScoreRows == 0 && kRowBlock<Product::kF32> % kValueRows == 0);
static_assert(kMostRows % kRowBlock<Product::kF32> == 0 && kQueryTile % kMostRows == 0);
static_assert(!kHasAmx || kMostRows % kAmxRows == 0);

ATTND_INLINE Product ProductOf(const Attention& a) {
  constexpr auto kBf16 = tensor::DType::kBF16;
  const bool bf16 = kHasBf16 && a.product_precision == ProductPrecision::kBF16 && a.q.dtype == kBf16 &&
                    a.k.dtype == kBf16 && a.v.dtype == kBf16;
  return bf16 ? Product::kBF16 : Product::kF32;
}

// Places (floats, or pairs) that `count` numbers take.
ATTND_INLINE std::int64_t Places(Product product, std::int64_t count) {
  return product == Product::kBF16 ? (count + 1) / 2 : count;
}

template <Product kProduct>
ATTND_INLINE Packet MultiplyAdd(Packet a, Packet b, Packet sum) {
#if ATTND_AVX512BF16
  if constexpr (kProduct == Product::kBF16) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
#elif ATTND_NEON_BF16
  if constexpr (kProduct == Product::kBF16) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
  }
#endif
  return ei::pmadd(a, b, sum);
}

// Stores the weights of keys [column, column + kWidth) of a row.
template <Product kProduct>
ATTND_INLINE void StoreWeights(Packet weights, float* row, std::int64_t column) {
#if ATTND_AVX512BF16
  if constexpr (kProduct == Product::kBF16) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(reinterpret_cast<std::uint16_t*>(row) + column),
                       reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(weights)));
    return;
  }
#elif ATTND_NEON_BF16
  if constexpr (kProduct == Product::kBF16) {
    vst1_bf16(reinterpret_cast<bfloat16_t*>(row) + column, vcvt_bf16_f32(weights));
    return;
  }
#endif
  ei::pstore(row + column, weights);
}

// PairRows: numbers [at, at + kWidth) of two rows of bf16 as pairs. FirstOfPairs and SecondOfPairs: the first and the
// second of each pair, as floats.
#if ATTND_AVX512BF16
ATTND_INLINE Packet PairRows(const std::uint16_t* first, const std::uint16_t* second, std::int64_t at) {
  const auto widen = [at](const std::uint16_t* row) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + at)));
  };
  return _mm512_castsi512_ps(_mm512_or_si512(widen(first), _mm512_slli_epi32(widen(second), 16)));
}
ATTND_INLINE Packet FirstOfPairs(Packet pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}
ATTND_INLINE Packet SecondOfPairs(Packet pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-65536)));
}
#elif ATTND_NEON_BF16
ATTND_INLINE Packet PairRows(const std::uint16_t* first, const std::uint16_t* second, std::int64_t at) {
  return vreinterpretq_f32_u32(vorrq_u32(vmovl_u16(vld1_u16(first + at)), vshll_n_u16(vld1_u16(second + at), 16)));
}
ATTND_INLINE Packet FirstOfPairs(Packet pairs) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs), 16));
}
ATTND_INLINE Packet SecondOfPairs(Packet pairs) {
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xffff0000)));
}
#endif

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
