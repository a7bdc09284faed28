// Adds weights times values to the rows' outputs.
#pragma once

#include "kernel/impl/product.h"
#include "platform/platform.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// A block of rows times one chunk of value columns, over `keys` keys.
struct ValueBlock {
  const float* weights;  // row r's at weights + r * weight_stride
  std::int64_t weight_stride;
  const float* values;  // key j's at values + j * value_stride, of any alignment
  std::int64_t value_stride;
  std::int64_t keys;  // places: keys, or pairs of them
  float* output;      // row r's at output + r * output_stride
  std::int64_t output_stride;
};

template <Product kProduct, int kRows, int kCols>
void AddValues(const ValueBlock& block) {
  Packet acc[kRows][kCols];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) acc[r][c] = ei::pload<Packet>(block.output + r * block.output_stride + c * kWidth);
  }
  const float* weights[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) weights[r] = block.weights + r * block.weight_stride;
  const float* v = block.values;
  for (std::int64_t j = 0; j < block.keys; ++j, v += block.value_stride) {
    Packet value[kCols];
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) value[c] = ei::ploadu<Packet>(v + c * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Packet weight = ei::pset1<Packet>(weights[r][j]);
#pragma GCC unroll 4
      for (int c = 0; c < kCols; ++c) acc[r][c] = MultiplyAdd<kProduct>(weight, value[c], acc[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kCols; ++c) ei::pstore(block.output + r * block.output_stride + c * kWidth, acc[r][c]);
  }
}

template <Product kProduct, int kCols>
inline void AddValues(const ValueBlock& block, std::int64_t rows) {
  static_assert(kValueRows == 6);
  switch (rows) {
    case 1:
      return AddValues<kProduct, 1, kCols>(block);
    case 2:
      return AddValues<kProduct, 2, kCols>(block);
    case 3:
      return AddValues<kProduct, 3, kCols>(block);
    case 4:
      return AddValues<kProduct, 4, kCols>(block);
    case 5:
      return AddValues<kProduct, 5, kCols>(block);
    default:
      return AddValues<kProduct, 6, kCols>(block);
  }
}

template <Product kProduct>
inline void AddValues(const ValueBlock& block, std::int64_t rows, std::int64_t packets) {
  switch (packets) {
    case 1:
      return AddValues<kProduct, 1>(block, rows);
    case 2:
      return AddValues<kProduct, 2>(block, rows);
#if ATTND_AVX512F || ATTND_AARCH64
    case 3:
      return AddValues<kProduct, 3>(block, rows);
    default:
      return AddValues<kProduct, 4>(block, rows);
#else
    default:
      return;
#endif
  }
}

// Whether the values of the places [first, last) are finite.
template <Product kProduct>
ATTND_INLINE bool AllFinite(const ValueBlock& block, std::int64_t first, std::int64_t last, std::int64_t packets) {
  if (first >= last) return true;
  const Packet zero = ei::pset1<Packet>(0.0f);
  Packet products = zero;  // becomes NaN with the first value that is infinite or NaN
  for (std::int64_t p = 0; p < packets; ++p) {
    Packet column = zero;
    for (std::int64_t j = first; j < last; ++j) {
      const Packet value = ei::ploadu<Packet>(block.values + j * block.value_stride + p * kWidth);
#if ATTND_BF16_PRODUCTS
      if constexpr (kProduct == Product::kBF16) {
        column = ei::pmadd(FirstOfPairs(value), zero, ei::pmadd(SecondOfPairs(value), zero, column));
        continue;
      }
#endif
      column = ei::pmadd(value, zero, column);
    }
    products = ei::padd(products, column);
  }
  return ei::predux(products) == 0.0f;
}

// Adds only the first key (kFirst) or only the second key of the pair at `place` to one row.
template <bool kFirst>
ATTND_INLINE void AddOneOfPair([[maybe_unused]] const ValueBlock& block, [[maybe_unused]] std::int64_t place,
                               [[maybe_unused]] std::int64_t packets) {
#if ATTND_BF16_PRODUCTS
  const auto one = [](Packet pairs) { return kFirst ? FirstOfPairs(pairs) : SecondOfPairs(pairs); };
  const Packet weight = one(ei::pset1<Packet>(block.weights[place]));
  const float* values = block.values + place * block.value_stride;
  for (std::int64_t p = 0; p < packets; ++p) {
    float* output = block.output + p * kWidth;
    const Packet value = one(ei::ploadu<Packet>(values + p * kWidth));
    ei::pstore(output, ei::pmadd(weight, value, ei::pload<Packet>(output)));
  }
#endif
}

// The block without its first `first` places.
ATTND_INLINE ValueBlock FromPlace(ValueBlock block, std::int64_t first) {
  block.weights += first;
  block.values += first * block.value_stride;
  block.keys -= first;
  return block;
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
