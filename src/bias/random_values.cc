#include "bias/random_values.h"

namespace attnd::bias {

std::vector<float> RandomValues(std::size_t count, std::uint64_t seed) {
  std::vector<float> values;
  values.reserve(count);
  std::uint64_t state = seed;
  for (std::size_t i = 0; i < count; ++i) {
    state += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    z ^= z >> 31;
    values.push_back(static_cast<float>(z >> 40) * 0x1p-23F - 1.0F);
  }
  return values;
}

}  // namespace attnd::bias
