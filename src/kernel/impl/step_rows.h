// The rows of keys or values that a direct call reads in one step: where each row lies, and products with rows in their
// own dtype.
#pragma once

#include "kernel/impl/rows.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Prefetch distance for rows of keys and of values. The processor's own prefetching stops at the end of each 4 KiB
// page. A larger distance is slower: prefetches then displace the loads that the kernel waits for.
inline constexpr std::int64_t kStepAhead = 8;

// Each row has whole packets of numbers of one dtype, at any address. The rows are followed by the addresses of
// kStepAhead rows that will be read next; the last of these may repeat.
struct StepRows {
  const std::byte* const* rows;
  tensor::DType dtype;
};

// Memory for the keys, or the values, of a step.
struct StepScratch {
  const std::byte** rows;  // [kDirectKeys + kStepAhead]: address of each row
  float* copies;           // [kDirectKeys][dim padded to packets]: rows that cannot be read in place
  float* gather;           // room for one row, twice
};
inline StepScratch CarveStep(std::int64_t padded_dim, Carver& carver) {
  return {carver.Take<const std::byte*>(kDirectKeys + kStepAhead), carver.Take<float>(kDirectKeys * padded_dim),
          carver.Take<float>(2 * padded_dim)};
}

// The rows [first, first + count) of a head; rows before `last` may be prefetched. A row is in place if it is whole
// packets long and one segment or page holds it. Otherwise it is copied, as floats if it is not whole packets long.
inline StepRows FindStepRows(const TensorView& view, RowReader& reader, std::int64_t first, std::int64_t count,
                             std::int64_t last, std::int64_t dim, const StepScratch& scratch) {
  const std::int64_t stride = RoundUp(dim, kWidth);
  const std::int64_t size = dim * ElementSize(view.dtype);
  const bool whole_packets = stride == dim;
  for (std::int64_t r = 0; r < count;) {
    float* copy = scratch.copies + r * stride;
    const std::byte* in_place = whole_packets ? reader.InPlace(first + r, size) : nullptr;
    if (in_place == nullptr) {
      if (whole_packets) {
        scratch.rows[r] = reader.Gather(first + r, size, reinterpret_cast<std::byte*>(copy));
      } else {
        CopyRow(reader, view.dtype, first + r, dim, reinterpret_cast<std::byte*>(scratch.gather), copy);
        scratch.rows[r] = reinterpret_cast<const std::byte*>(copy);
      }
      ++r;
      continue;
    }
    const std::int64_t run = reader.RowsInPlace(first + r, count - r, size);
    for (std::int64_t i = 0; i < run; ++i) scratch.rows[r + i] = in_place + i * reader.row_bytes();
    r += run;
  }
  for (std::int64_t i = count; i < count + kStepAhead; ++i) {
    const std::byte* next = whole_packets && first + i < last ? reader.InPlace(first + i, size) : nullptr;
    scratch.rows[i] = next == nullptr ? scratch.rows[i - 1] : next;
  }
  return {scratch.rows, whole_packets ? view.dtype : tensor::DType::kF32};
}

// Prefetches `size` bytes.
ATTND_INLINE void AskForBytes(const std::byte* from, std::int64_t size) {
  for (std::int64_t at = 0; at < size; at += 64) __builtin_prefetch(from + at);
}

// Numbers [at, at + kWidth) of a row.
template <tensor::DType kDType>
ATTND_INLINE Packet NumbersAt(const std::byte* row, std::int64_t at) {
  if constexpr (kDType == tensor::DType::kF32) {
    return ei::ploadu<Packet>(reinterpret_cast<const float*>(row) + at);
  } else if constexpr (kDType == tensor::DType::kBF16) {
    return PacketOfBf16(row + 2 * at);
  } else {
    return PacketOfF16(row + 2 * at);
  }
}

// Calls step.operator()<dtype>().
template <typename Step>
ATTND_INLINE void WithDType(tensor::DType dtype, const Step& step) {
  switch (dtype) {
    case tensor::DType::kF32:
      return step.template operator()<tensor::DType::kF32>();
    case tensor::DType::kF16:
      return step.template operator()<tensor::DType::kF16>();
    case tensor::DType::kBF16:
      return step.template operator()<tensor::DType::kBF16>();
  }
}

// Products of one query with kWidth key rows, the last of which may repeat. With `kFromMemory` the keys come from
// memory and are read row by row, as they lie. Otherwise an earlier query has brought them into the cache, and they are
// read column by column, which loads each part of the query once. The sums are the same.
template <tensor::DType kDType, bool kFromMemory>
ATTND_INLINE Packet ScoreKeys(const float* query, const std::byte* const (&keys)[kWidth], std::int64_t padded_dim) {
  ei::PacketBlock<Packet, kWidth> acc;
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) {
    acc.packet[i] = ei::pset1<Packet>(0.0f);
    for (std::int64_t d = 0; kFromMemory && d < padded_dim; d += kWidth) {
      acc.packet[i] = ei::pmadd(ei::pload<Packet>(query + d), NumbersAt<kDType>(keys[i], d), acc.packet[i]);
    }
  }
  for (std::int64_t d = 0; !kFromMemory && d < padded_dim; d += kWidth) {
    const Packet part = ei::pload<Packet>(query + d);
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) acc.packet[i] = ei::pmadd(part, NumbersAt<kDType>(keys[i], d), acc.packet[i]);
  }
  ei::ptranspose(acc);
#pragma GCC unroll 8
  for (int half = kWidth / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) acc.packet[i] = ei::padd(acc.packet[i], acc.packet[i + half]);
  }
  return acc.packet[0];
}

// The weights of some rows times one chunk of value columns, over `keys` keys.
struct StepValues {
  const float* weights;  // row r's at weights + r * weight_stride
  std::int64_t weight_stride;
  const std::byte* const* values;  // the row of each key, then kStepAhead more rows
  std::int64_t first_column;       // of the chunk
  std::int64_t keys;
  float* output;  // row r's at output + r * output_stride
  std::int64_t output_stride;
};

template <tensor::DType kDType, int kRows, int kCols>
void AddStepValues(const StepValues& step) {
  Packet acc[kRows][kCols];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) acc[r][c] = ei::pload<Packet>(step.output + r * step.output_stride + c * kWidth);
  }
  const float* weights[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) weights[r] = step.weights + r * step.weight_stride;
  for (std::int64_t j = 0; j < step.keys; ++j) {
    const std::byte* row = step.values[j];
    const std::int64_t size = ElementSize(kDType);
    AskForBytes(step.values[j + kStepAhead] + step.first_column * size, kCols * kWidth * size);
    Packet value[kCols];
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) value[c] = NumbersAt<kDType>(row, step.first_column + c * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Packet weight = ei::pset1<Packet>(weights[r][j]);
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = ei::pmadd(weight, value[c], acc[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) ei::pstore(step.output + r * step.output_stride + c * kWidth, acc[r][c]);
  }
}

template <tensor::DType kDType, int kCols>
inline void AddStepValues(const StepValues& step, std::int64_t rows) {
  static_assert(kStepRows == 4);
  switch (rows) {
    case 1:
      return AddStepValues<kDType, 1, kCols>(step);
    case 2:
      return AddStepValues<kDType, 2, kCols>(step);
    case 3:
      return AddStepValues<kDType, 3, kCols>(step);
    default:
      return AddStepValues<kDType, 4, kCols>(step);
  }
}

template <tensor::DType kDType>
inline void AddStepValues(const StepValues& step, std::int64_t rows, std::int64_t packets) {
  static_assert(kValueCols == 2 || kValueCols == 4);
  if constexpr (kValueCols == 4) {
    if (packets == 3) return AddStepValues<kDType, 3>(step, rows);
    if (packets == 4) return AddStepValues<kDType, 4>(step, rows);
  }
  if (packets == 1) return AddStepValues<kDType, 1>(step, rows);
  AddStepValues<kDType, 2>(step, rows);
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
