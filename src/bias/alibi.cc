#include "bias/alibi.h"

#include <cmath>

namespace attnd::bias {

std::vector<float> PaperSlopes(std::int64_t heads) {
  std::int64_t power = 1;
  while (power <= heads / 2) power *= 2;
  std::vector<float> slopes;
  const auto add = [&slopes](std::int64_t i, std::int64_t n) {
    slopes.push_back(static_cast<float>(std::pow(2.0, -8.0 * static_cast<double>(i) / static_cast<double>(n))));
  };
  for (std::int64_t i = 1; i <= power; ++i) add(i, power);
  for (std::int64_t i = 0; i < heads - power; ++i) add(2 * i + 1, 2 * power);
  return slopes;
}

}  // namespace attnd::bias
