// Packing: reads keys and values of any dtype, alignment, strides and segments into the layout of the tile kernel.
//
// Keys become panels of kPanel keys, transposed and times scale * log2(e): [panel][head_dim][kPanel]. Values become
// rows of whole packets, [key][packets * kWidth]; values that already have this layout are read in place. Missing keys
// of the last panel and missing columns of the last packet are zeros. So are values of keys that key bits hide: their
// weights are zero, and zero times NaN is NaN. For bf16 products each place holds a pair of numbers (product.h), and
// the scale is applied to the scores.
#pragma once

#include "kernel/impl/key_bits.h"
#include "kernel/impl/product.h"
#include "platform/platform.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

inline std::size_t PackedKeyBytes(const Attention& a, std::int64_t keys) {
  return static_cast<std::size_t>(RoundUp(keys, kPanel) * Places(ProductOf(a), a.head_dim)) * sizeof(float);
}
inline std::size_t PackedValueBytes(const Attention& a, std::int64_t keys) {
  return static_cast<std::size_t>(Places(ProductOf(a), keys) * ValuePackets(a) * kWidth) * sizeof(float);
}

struct PackScratch {
  float* rows;    // kWidth rows, each with room to gather and widen
  float* zeros;   // one row
  float* padded;  // two rows of bf16 values, padded to whole packets
};

inline PackScratch CarvePack(const Attention& a, Carver& carver) {
  const std::int64_t dim = RoundUp(Max(a.head_dim, a.value_head_dim), kWidth);
  return {carver.Take<float>(kWidth * 2 * dim), carver.Take<float>(dim), carver.Take<float>(dim)};
}

// Numbers [d, d + kWidth) of kWidth rows, transposed.
ATTND_INLINE void LoadTransposed(const float* const (&rows)[kWidth], std::int64_t d,
                                 ei::PacketBlock<Packet, kWidth>& block) {
#if ATTND_AVX512F
  // Loads rows i, i + 4, i + 8, i + 12 into the four lanes of one register. Four numbers of all rows are then
  // transposed within the lanes, where Eigen's ptranspose crosses lanes.
  for (int quad = 0; quad < 4; ++quad) {
    __m512 lanes[4];
    for (int i = 0; i < 4; ++i) {
      const std::int64_t at = d + 4 * quad;
      lanes[i] = _mm512_castps128_ps512(_mm_loadu_ps(rows[i] + at));
      lanes[i] = _mm512_insertf32x4(lanes[i], _mm_loadu_ps(rows[i + 4] + at), 1);
      lanes[i] = _mm512_insertf32x4(lanes[i], _mm_loadu_ps(rows[i + 8] + at), 2);
      lanes[i] = _mm512_insertf32x4(lanes[i], _mm_loadu_ps(rows[i + 12] + at), 3);
    }
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(lanes[0], lanes[1]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(lanes[0], lanes[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(lanes[2], lanes[3]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(lanes[2], lanes[3]));
    block.packet[4 * quad + 0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
    block.packet[4 * quad + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
    block.packet[4 * quad + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
    block.packet[4 * quad + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
  }
#else
  for (int i = 0; i < kWidth; ++i) block.packet[i] = ei::ploadu<Packet>(rows[i] + d);
  ei::ptranspose(block);
#endif
}

// Transposes kWidth rows into kWidth columns: to[d * stride + i] = rows[i][d], multiplied by `factor` if kScaled. If
// not scaled, the numbers may be any bits.
template <bool kScaled>
ATTND_INLINE void TransposeRows(const float* const (&rows)[kWidth], std::int64_t dim, float factor, float* to,
                                std::int64_t stride) {
  const Packet scale = ei::pset1<Packet>(factor);
  std::int64_t d = 0;
  for (; d + kWidth <= dim; d += kWidth) {
    ei::PacketBlock<Packet, kWidth> block;
    LoadTransposed(rows, d, block);
    for (int i = 0; i < kWidth; ++i) {
      ei::pstore(to + (d + i) * stride, kScaled ? ei::pmul(block.packet[i], scale) : block.packet[i]);
    }
  }
  for (; d < dim; ++d) {
    for (int i = 0; i < kWidth; ++i) {
      std::memcpy(to + d * stride + i, rows[i] + d, sizeof(float));
      if (kScaled) to[d * stride + i] *= factor;
    }
  }
}

// A row of bf16 numbers as pairs, unchanged; a zero completes the last pair.
ATTND_INLINE const float* FindPairs(RowReader& reader, std::int64_t row, std::int64_t dim, float* buffer) {
  auto* bytes = reinterpret_cast<std::byte*>(buffer);
  const std::byte* pairs = reader.Bytes(row, 2 * dim, bytes);
  if (dim % 2 != 0) {
    if (pairs != bytes) std::memcpy(bytes, pairs, static_cast<std::size_t>(2 * dim));
    std::memset(bytes + 2 * dim, 0, 2);
    pairs = bytes;
  }
  return reinterpret_cast<const float*>(pairs);
}

// Rows [row, row + kWidth) of a head, as floats or pairs; those from `last` on are zeros.
ATTND_INLINE void FindRows(Product product, RowReader& reader, std::int64_t row, std::int64_t last, std::int64_t dim,
                           const PackScratch& work, const float* (&rows)[kWidth]) {
  for (int i = 0; i < kWidth; ++i) {
    float* buffer = work.rows + 2 * i * dim;
    if (row + i >= last) {
      rows[i] = work.zeros;
    } else if (product == Product::kBF16) {
      rows[i] = FindPairs(reader, row + i, dim, buffer);
    } else {
      rows[i] = reader.Floats(row + i, dim, buffer);
    }
  }
}

inline void PackKeys(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                     std::int64_t last, const PackedHead& packed, std::byte* scratch) {
  Carver carver(scratch);
  const PackScratch work = CarvePack(a, carver);
  std::memset(work.zeros, 0, static_cast<std::size_t>(a.head_dim) * sizeof(float));
  RowReader reader(a.k, batch, kv_head);
  const Product product = ProductOf(a);
  const std::int64_t places = Places(product, a.head_dim);
  float* data = reinterpret_cast<float*>(packed.keys_data);
  const std::int64_t padded_last = packed.first_key + RoundUp(last - packed.first_key, kPanel);
  for (std::int64_t key = first; key < padded_last; key += kWidth) {
    const float* rows[kWidth];
    FindRows(product, reader, key, last, a.head_dim, work, rows);
    const std::int64_t at = key - packed.first_key;
    float* to = data + at / kPanel * kPanel * places + at % kPanel;
    if (product == Product::kBF16) {
      TransposeRows<false>(rows, places, 1.0f, to, kPanel);
    } else {
      TransposeRows<true>(rows, places, a.scale * kLog2E, to, kPanel);
    }
  }
}

#if ATTND_BF16_PRODUCTS
// Packs rows of values as pairs of keys; a last odd key is paired with zeros.
inline void PackValuePairs(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                           std::int64_t last, float* to, const PackScratch& work) {
  RowReader reader(a.v, batch, kv_head);
  const std::int64_t dim = a.value_head_dim;
  const std::size_t bytes = static_cast<std::size_t>(2 * dim);
  const std::int64_t padded = ValuePackets(a) * kWidth;
  auto* rows = reinterpret_cast<std::uint16_t*>(work.padded);
  std::memset(rows, 0, static_cast<std::size_t>(4 * padded));
  const auto find = [&](std::int64_t key, std::uint16_t* copy) -> const std::uint16_t* {
    if (!KeyBit(a, batch, key)) {
      std::memset(copy, 0, static_cast<std::size_t>(2 * padded));
      return copy;
    }
    auto* buffer = reinterpret_cast<std::byte*>(dim % kWidth == 0 ? work.rows : work.zeros);
    buffer += copy == rows ? 0 : 2 * padded;
    const std::byte* row = reader.Bytes(key, 2 * dim, buffer);
    if (dim % kWidth == 0) return reinterpret_cast<const std::uint16_t*>(row);
    std::memcpy(copy, row, bytes);
    return copy;
  };
  for (std::int64_t key = first; key < last; key += 2) {
    const std::uint16_t* one = find(key, rows);
    const std::uint16_t* two = rows + padded;
    if (key + 1 < last) {
      two = find(key + 1, rows + padded);
    } else {
      std::memset(rows + padded, 0, static_cast<std::size_t>(2 * padded));
    }
    for (std::int64_t d = 0; d < padded; d += kWidth, to += kWidth) ei::pstore(to, PairRows(one, two, d));
  }
}
#endif

inline void PackValues(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                       std::int64_t last, std::byte* packed, std::byte* scratch) {
  Carver carver(scratch);
  const PackScratch work = CarvePack(a, carver);
  float* to = reinterpret_cast<float*>(packed);
#if ATTND_BF16_PRODUCTS
  if (ProductOf(a) == Product::kBF16) return PackValuePairs(a, batch, kv_head, first, last, to, work);
#endif
  RowReader reader(a.v, batch, kv_head);
  for (std::int64_t key = first; key < last; ++key, to += ValuePackets(a) * kWidth) {
    if (!KeyBit(a, batch, key)) {
      std::memset(to, 0, static_cast<std::size_t>(ValuePackets(a) * kWidth) * sizeof(float));
      continue;
    }
    CopyRow(reader, a.v.dtype, key, a.value_head_dim, reinterpret_cast<std::byte*>(work.rows), to);
  }
}

inline const std::byte* ValuesInPlace(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                                      std::int64_t last) {
  const bool as_packed =
      a.v.dtype == tensor::DType::kF32 && a.value_head_dim % kWidth == 0 && a.v.row_stride == a.value_head_dim;
  if (!as_packed || HidesAny(a, batch, first, last)) return nullptr;
  return RowReader(a.v, batch, kv_head).InPlace(first, (last - first) * 4 * a.value_head_dim);
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
