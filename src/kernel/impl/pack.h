// Packing: the one place where keys and values are read, whatever their dtype, alignment, strides and segments.
//
// Keys become panels of kPanel keys, transposed: [panel][head_dim][kPanel]. Values become chunks of a few packets:
// [chunk][key][packets * kWidth]. Missing keys of the last panel and missing columns of the last packet are zeros.
#pragma once

#include "kernel/impl/rows.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

inline std::size_t PackedKeyBytes(const Attention& a, std::int64_t keys) {
  return static_cast<std::size_t>(RoundUp(keys, kPanel) * a.head_dim) * sizeof(float);
}
inline std::size_t PackedValueBytes(const Attention& a, std::int64_t keys) {
  return static_cast<std::size_t>(keys * ValuePackets(a) * kWidth) * sizeof(float);
}

struct PackScratch {
  float* rows;    // kWidth rows, each with room to gather and widen
  float* zeros;   // head_dim
  float* padded;  // one row of values, padded to whole packets
};

inline PackScratch CarvePack(const Attention& a, Carver& carver) {
  const std::int64_t dim = Max(a.head_dim, a.value_head_dim);
  return {carver.Take<float>(kWidth * 2 * dim), carver.Take<float>(dim), carver.Take<float>(RoundUp(dim, kWidth))};
}

// kWidth rows into kWidth columns: to[d * stride + i] = rows[i][d] * factor.
ATTND_INLINE void TransposeRows(const float* const (&rows)[kWidth], std::int64_t dim, float factor, float* to,
                                std::int64_t stride) {
  const Packet scale = ei::pset1<Packet>(factor);
  std::int64_t d = 0;
  for (; d + kWidth <= dim; d += kWidth) {
    ei::PacketBlock<Packet, kWidth> block;
    for (int i = 0; i < kWidth; ++i) block.packet[i] = ei::ploadu<Packet>(rows[i] + d);
    ei::ptranspose(block);
    for (int i = 0; i < kWidth; ++i) ei::pstore(to + (d + i) * stride, ei::pmul(block.packet[i], scale));
  }
  for (; d < dim; ++d) {
    for (int i = 0; i < kWidth; ++i) {
      float value;
      std::memcpy(&value, rows[i] + d, sizeof value);
      to[d * stride + i] = value * factor;
    }
  }
}

// Rows [row, row + kWidth) of a head as floats; those from `last` on are zeros.
ATTND_INLINE void FindRows(const TensorView& view, RowReader& reader, std::int64_t batch, std::int64_t head,
                           std::int64_t row, std::int64_t last, std::int64_t dim, const PackScratch& work,
                           const float* (&rows)[kWidth]) {
  for (int i = 0; i < kWidth; ++i) {
    rows[i] = row + i < last ? reader.Floats(RowPosition(view, batch, head, row + i), dim, work.rows + 2 * i * dim)
                             : work.zeros;
  }
}

inline void PackKeys(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                     std::int64_t last, const PackedHead& packed, std::byte* scratch) {
  Carver carver(scratch);
  const PackScratch work = CarvePack(a, carver);
  std::memset(work.zeros, 0, static_cast<std::size_t>(a.head_dim) * sizeof(float));
  RowReader reader(a.k);
  float* data = reinterpret_cast<float*>(packed.keys_data);
  const std::int64_t padded_last = packed.first_key + RoundUp(last - packed.first_key, kPanel);
  for (std::int64_t key = first; key < padded_last; key += kWidth) {
    const float* rows[kWidth];
    FindRows(a.k, reader, batch, kv_head, key, last, a.head_dim, work, rows);
    const std::int64_t at = key - packed.first_key;
    TransposeRows(rows, a.head_dim, 1.0f, data + at / kPanel * kPanel * a.head_dim + at % kPanel, kPanel);
  }
}

inline bool PackValues(const Attention& a, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                       std::int64_t last, const PackedHead& packed, std::byte* scratch) {
  Carver carver(scratch);
  const PackScratch work = CarvePack(a, carver);
  RowReader reader(a.v);
  float* data = reinterpret_cast<float*>(packed.values_data);
  const std::int64_t dim = a.value_head_dim;
  const std::int64_t packets = ValuePackets(a);
  const std::int64_t chunks = ValueChunks(packets);
  const bool pad = dim % kWidth != 0;
  if (pad) std::memset(work.padded, 0, static_cast<std::size_t>(packets * kWidth) * sizeof(float));
  const Packet zero = ei::pset1<Packet>(0.0f);
  Packet not_finite = zero;  // becomes NaN with the first value that is infinite or NaN
  for (std::int64_t key = first; key < last; ++key) {
    const float* row = reader.Floats(RowPosition(a.v, batch, kv_head, key), dim, work.rows);
    if (pad) {
      std::memcpy(work.padded, row, static_cast<std::size_t>(dim) * sizeof(float));
      row = work.padded;
    }
    for (std::int64_t c = 0; c < chunks; ++c) {
      const ValueChunk chunk = ChunkAt(packets, c);
      float* to = data + chunk.first_packet * kWidth * packed.keys + (key - packed.first_key) * chunk.packets * kWidth;
      for (std::int64_t p = 0; p < chunk.packets; ++p) {
        const Packet value = ei::ploadu<Packet>(row + (chunk.first_packet + p) * kWidth);
        not_finite = ei::pmadd(value, zero, not_finite);
        ei::pstore(to + p * kWidth, value);
      }
    }
  }
  return ei::predux(not_finite) == 0.0f;
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
