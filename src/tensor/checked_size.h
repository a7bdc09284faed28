// The only place where sizes are multiplied: the codec, the loaders and the client use it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>

namespace attnd::tensor {

// Product of `dims`. Returns nullopt if a dim is negative, or if the product of the dims other than 0 does not fit
// std::int64_t. An empty list gives 1; otherwise a dim of 0 gives 0.
template <typename Range>
constexpr std::optional<std::int64_t> CheckedProduct(const Range& dims) {
  std::int64_t product = 1;
  bool zero = false;
  for (const auto dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      zero = true;
      continue;
    }
    if (product > std::numeric_limits<std::int64_t>::max() / static_cast<std::int64_t>(dim)) return std::nullopt;
    product *= static_cast<std::int64_t>(dim);
  }
  return zero ? 0 : product;
}

constexpr std::optional<std::int64_t> CheckedProduct(std::initializer_list<std::int64_t> dims) {
  return CheckedProduct<std::initializer_list<std::int64_t>>(dims);
}

}  // namespace attnd::tensor
