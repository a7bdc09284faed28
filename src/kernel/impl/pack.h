// Packing: the one place where keys and values are read, whatever their dtype, alignment, strides and segments.
//
// Keys become panels of kPanel keys, transposed: [panel][head_dim][kPanel]. Values become chunks of a few packets:
// [chunk][key][packets * kWidth]. Missing keys of the last panel and missing columns of the last packet are zeros. For
// products of bf16 a pair of numbers stands in each place (product.h).
#pragma once

#include "kernel/impl/product.h"

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
  float* padded;  // two rows of values, padded to whole packets
};

inline PackScratch CarvePack(const Attention& a, Carver& carver) {
  const std::int64_t dim = RoundUp(Max(a.head_dim, a.value_head_dim), kWidth);
  return {carver.Take<float>(kWidth * 2 * dim), carver.Take<float>(dim), carver.Take<float>(dim)};
}

// Numbers [d, d + kWidth) of kWidth rows, transposed.
ATTND_INLINE void LoadTransposed(const float* const (&rows)[kWidth], std::int64_t d,
                                 ei::PacketBlock<Packet, kWidth>& block) {
#if defined(__AVX512F__)
  // Rows i, i + 4, i + 8, i + 12 are loaded into the four lanes of one register, so that four numbers of all rows are
  // transposed inside the lanes. Eigen's ptranspose crosses lanes in registers; a call at n = 128 takes 3% longer with
  // it.
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

// kWidth rows into kWidth columns: to[d * stride + i] = rows[i][d], multiplied by `factor` if kScaled. Not scaled, the
// numbers may be any bits.
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

// kWidth rows of any bits one after another.
ATTND_INLINE void CopyRows(const float* const (&rows)[kWidth], std::int64_t dim, float* to) {
  const auto bytes = static_cast<std::size_t>(dim) * sizeof(float);
  for (int i = 0; i < kWidth; ++i) std::memcpy(to + i * dim, rows[i], bytes);
}

// A row of bf16 as it is, as pairs.
ATTND_INLINE const float* FindPairs(RowReader& reader, std::int64_t position, std::int64_t dim, float* buffer) {
  auto* bytes = reinterpret_cast<std::byte*>(buffer);
  const std::byte* row = reader.Bytes(2 * position, 2 * dim, bytes);
  if (dim % 2 != 0) {
    if (row != bytes) std::memcpy(bytes, row, static_cast<std::size_t>(2 * dim));
    std::memset(bytes + 2 * dim, 0, 2);
    row = bytes;
  }
  return reinterpret_cast<const float*>(row);
}

// Rows [row, row + kWidth) of a head, as floats or pairs; those from `last` on are zeros.
ATTND_INLINE void FindRows(const TensorView& view, Product product, RowReader& reader, std::int64_t batch,
                           std::int64_t head, std::int64_t row, std::int64_t last, std::int64_t dim,
                           const PackScratch& work, const float* (&rows)[kWidth]) {
  for (int i = 0; i < kWidth; ++i) {
    float* buffer = work.rows + 2 * i * dim;
    const std::int64_t position = RowPosition(view, batch, head, row + i);
    if (row + i >= last) {
      rows[i] = work.zeros;
    } else if (product == Product::kBF16) {
      rows[i] = FindPairs(reader, position, dim, buffer);
    } else {
      rows[i] = reader.Floats(position, dim, buffer);
    }
  }
}

inline void PackKeys(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                     std::int64_t last, const PackedHead& packed, std::byte* scratch) {
  Carver carver(scratch);
  const PackScratch work = CarvePack(a, carver);
  std::memset(work.zeros, 0, static_cast<std::size_t>(a.head_dim) * sizeof(float));
  RowReader reader(a.k);
  const Product product = ProductOf(a);
  const std::int64_t places = Places(product, a.head_dim);
  float* data = reinterpret_cast<float*>(packed.keys_data);
  const std::int64_t padded_last = packed.first_key + RoundUp(last - packed.first_key, kPanel);
  for (std::int64_t key = first; key < padded_last; key += kWidth) {
    const float* rows[kWidth];
    FindRows(a.k, product, reader, batch, kv_head, key, last, a.head_dim, work, rows);
    const std::int64_t at = key - packed.first_key;
    TransposeRows<false>(rows, places, 1.0f, data + at / kPanel * kPanel * places + at % kPanel, kPanel);
  }
}

// Calls store(packet, to) for the packets of row `row` of `rows` rows of packed values.
template <typename Store>
ATTND_INLINE void ForEachValuePacket(const Attention& a, const PackedHead& packed, std::int64_t rows, std::int64_t row,
                                     const Store& store) {
  float* data = reinterpret_cast<float*>(packed.values_data);
  const std::int64_t packets = ValuePackets(a);
  for (std::int64_t c = 0; c < ValueChunks(packets); ++c) {
    const ValueChunk chunk = ChunkAt(packets, c);
    float* to = data + (chunk.first_packet * rows + row * chunk.packets) * kWidth;
    for (std::int64_t p = 0; p < chunk.packets; ++p) store(chunk.first_packet + p, to + p * kWidth);
  }
}

#if defined(__AVX512BF16__)
// Rows of values in pairs of keys; a last odd key's partner is zeros.
inline bool PackValuePairs(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                           std::int64_t last, const PackedHead& packed, const PackScratch& work) {
  RowReader reader(a.v);
  const std::int64_t dim = a.value_head_dim;
  const std::size_t bytes = static_cast<std::size_t>(2 * dim);
  const std::int64_t padded = ValuePackets(a) * kWidth;
  auto* rows = reinterpret_cast<std::uint16_t*>(work.padded);
  std::memset(rows, 0, static_cast<std::size_t>(4 * padded));
  const auto find = [&](std::int64_t key, std::uint16_t* copy) -> const std::uint16_t* {
    auto* buffer = reinterpret_cast<std::byte*>(dim % kWidth == 0 ? work.rows : work.zeros);
    buffer += copy == rows ? 0 : 2 * padded;
    const std::byte* row = reader.Bytes(2 * RowPosition(a.v, batch, kv_head, key), 2 * dim, buffer);
    if (dim % kWidth == 0) return reinterpret_cast<const std::uint16_t*>(row);
    std::memcpy(copy, row, bytes);
    return copy;
  };
  const Packet zero = ei::pset1<Packet>(0.0f);
  Packet not_finite = zero;
  for (std::int64_t key = first; key < last; key += 2) {
    const std::uint16_t* one = find(key, rows);
    const std::uint16_t* two = rows + padded;
    if (key + 1 < last) {
      two = find(key + 1, rows + padded);
    } else {
      std::memset(rows + padded, 0, static_cast<std::size_t>(2 * padded));
    }
    ForEachValuePacket(a, packed, Places(Product::kBF16, packed.keys), (key - packed.first_key) / 2,
                       [&](std::int64_t packet, float* to) {
                         const Packet pairs = PairRows(one, two, packet * kWidth);
                         not_finite = ei::pmadd(FirstOfPairs(pairs), zero, not_finite);
                         not_finite = ei::pmadd(SecondOfPairs(pairs), zero, not_finite);
                         ei::pstore(to, pairs);
                       });
  }
  return ei::predux(not_finite) == 0.0f;
}
#endif

inline bool PackValues(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                       std::int64_t last, const PackedHead& packed, std::byte* scratch) {
  Carver carver(scratch);
  const PackScratch work = CarvePack(a, carver);
#if defined(__AVX512BF16__)
  if (ProductOf(a) == Product::kBF16) return PackValuePairs(a, batch, kv_head, first, last, packed, work);
#endif
  RowReader reader(a.v);
  const std::int64_t dim = a.value_head_dim;
  const bool pad = dim % kWidth != 0;
  if (pad) std::memset(work.padded, 0, static_cast<std::size_t>(ValuePackets(a) * kWidth) * sizeof(float));
  const Packet zero = ei::pset1<Packet>(0.0f);
  Packet not_finite = zero;  // becomes NaN with the first value that is infinite or NaN
  for (std::int64_t key = first; key < last; ++key) {
    const float* row = reader.Floats(RowPosition(a.v, batch, kv_head, key), dim, work.rows);
    if (pad) {
      std::memcpy(work.padded, row, static_cast<std::size_t>(dim) * sizeof(float));
      row = work.padded;
    }
    ForEachValuePacket(a, packed, packed.keys, key - packed.first_key, [&](std::int64_t packet, float* to) {
      const Packet value = ei::ploadu<Packet>(row + packet * kWidth);
      not_finite = ei::pmadd(value, zero, not_finite);
      ei::pstore(to, value);
    });
  }
  return ei::predux(not_finite) == 0.0f;
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
