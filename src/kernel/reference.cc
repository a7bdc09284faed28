#include "kernel/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/half.h"

namespace attnd::kernel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename T>
T FromBytes(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

}  // namespace

double ElementAt(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t column) {
  const std::size_t size = tensor::SizeOf(view.dtype);
  std::byte bytes[4];
  if (view.pages != nullptr) {
    const std::int64_t in_page = view.page_begin + head * view.head_stride + row % view.page_rows * view.row_stride;
    std::memcpy(bytes, view.pages[batch][row / view.page_rows] + static_cast<std::size_t>(in_page + column) * size,
                size);
  } else {
    std::size_t at = static_cast<std::size_t>(PlaceOf(view, batch, head, row) + column) * size;
    std::int64_t segment = 0;
    for (std::size_t i = 0; i < size; ++i, ++at) {
      while (at >= view.segments[segment].size) at -= view.segments[segment++].size;
      bytes[i] = view.segments[segment].data[at];
    }
  }
  switch (view.dtype) {
    case tensor::DType::kF32:
      return FromBytes<float>(bytes);
    case tensor::DType::kF16:
      return tensor::FloatFromHalf(FromBytes<std::uint16_t>(bytes));
    case tensor::DType::kBF16:
      return tensor::FloatFromBFloat16(FromBytes<std::uint16_t>(bytes));
  }
  return 0;
}

double BiasAt(const BiasView& bias, std::int64_t head, std::int64_t offset) {
  const double constant = bias.constant[head];
  const auto slope = [head](const float* slopes) { return slopes == nullptr ? 0.0 : slopes[head]; };
  if (offset > bias.max_offset) {
    return constant - slope(bias.high_slope) * static_cast<double>(offset - bias.max_offset);
  }
  if (offset < bias.min_offset) {
    return constant + bias.low_value[head] - slope(bias.low_slope) * static_cast<double>(bias.min_offset - offset);
  }
  return constant + bias.values[head * bias.head_stride + (bias.max_offset - offset)];
}

namespace {

// The first `rows` rows of one head.
std::vector<double> ReadRows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t rows,
                             std::int64_t dim) {
  std::vector<double> values;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t d = 0; d < dim; ++d) {
      values.push_back(ElementAt(view, b, h, row, d));
    }
  }
  return values;
}

}  // namespace

void Reference(const Attention& a, double* out, double* log_sum_exp) {
  for (std::int64_t b = 0; b < a.batch; ++b) {
    const std::int64_t start = a.key_starts != nullptr ? a.key_starts[b] : 0;
    const std::int64_t keys = a.key_lengths != nullptr ? a.key_lengths[b] : a.key_length;
    const std::int64_t queries = a.query_lengths != nullptr ? a.query_lengths[b] : a.query_length;
    const std::int64_t first_position = a.query_offsets != nullptr ? a.query_offsets[b] : a.query_offset;
    const auto sees = [&](std::int64_t i, std::int64_t j) {
      if (i >= queries || j < start || j >= keys) return false;
      const std::int64_t offset = first_position + i - j;
      const bool in_prefix = a.prefix_lengths != nullptr && j < a.prefix_lengths[b];
      if (a.mask == Mask::kCausal && offset < 0 && !in_prefix) return false;
      if (offset > a.left || -offset > a.right) return false;
      if (a.key_bits == nullptr) return true;
      const std::int64_t bit = b * ((a.key_length + 7) / 8 * 8) + j;
      return ((std::to_integer<int>(a.key_bits[bit / 8]) >> (bit % 8)) & 1) != 0;
    };
    for (std::int64_t h = 0; h < a.heads; ++h) {
      const std::int64_t g = h / (a.heads / a.kv_heads);
      const std::vector<double> q = ReadRows(a.q, b, h, queries, a.head_dim);
      const std::vector<double> k = ReadRows(a.k, b, g, keys, a.head_dim);
      const std::vector<double> v = ReadRows(a.v, b, g, keys, a.value_head_dim);
      for (std::int64_t i = 0; i < a.query_length; ++i) {
        const std::int64_t position = first_position + i;
        std::vector<double> weights(static_cast<std::size_t>(keys));
        double max = -kInfinity;
        for (std::int64_t j = 0; j < keys; ++j) {
          if (!sees(i, j)) continue;
          double logit = std::inner_product(q.data() + i * a.head_dim, q.data() + (i + 1) * a.head_dim,
                                            k.data() + j * a.head_dim, 0.0) *
                         a.scale;
          if (a.bias != nullptr) logit += BiasAt(*a.bias, h, position - j);
          if (a.key_bias != nullptr) logit += a.key_bias[h * a.key_length + j];
          weights[static_cast<std::size_t>(j)] = logit;
          max = std::max(max, logit);
        }
        double sum = 0;
        for (std::int64_t j = 0; j < keys; ++j) {
          if (!sees(i, j)) continue;
          double& weight = weights[static_cast<std::size_t>(j)];
          sum += weight = std::exp(weight - (max == -kInfinity ? 0 : max));
        }

        const std::int64_t row = (b * a.heads + h) * a.query_length + i;
        for (std::int64_t d = 0; d < a.value_head_dim; ++d) {
          double value = 0;
          for (std::int64_t j = 0; j < keys; ++j) {
            if (!sees(i, j)) continue;
            value += weights[static_cast<std::size_t>(j)] * v[static_cast<std::size_t>(j * a.value_head_dim + d)];
          }
          out[row * a.value_head_dim + d] = sum == 0 ? 0 : value / sum;
        }
        if (log_sum_exp != nullptr) log_sum_exp[row] = sum == 0 ? -kInfinity : max + std::log(sum);
      }
    }
  }
}

}  // namespace attnd::kernel
