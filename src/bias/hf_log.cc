#include "bias/hf_log.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>

namespace attnd::bias {
namespace {

// Bits of x, ascending. The sign bit is set if PyTorch's result is one ulp below the rounded one instead of above.
constexpr std::uint32_t kDecisive[] = {
#include "bias/hf_log_table.inc"
};
constexpr std::uint32_t kBelow = 0x80000000U;

}  // namespace

float RoundedLog(double x) { return static_cast<float>(std::log(x)); }

float HuggingFaceLog(float x) {
  const float rounded = RoundedLog(static_cast<double>(x));
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const auto* found = std::lower_bound(std::begin(kDecisive), std::end(kDecisive), bits,
                                       [](std::uint32_t entry, std::uint32_t key) { return (entry & ~kBelow) < key; });
  if (found == std::end(kDecisive) || (*found & ~kBelow) != bits) return rounded;
  const std::uint32_t result = std::bit_cast<std::uint32_t>(rounded);
  return std::bit_cast<float>((*found & kBelow) != 0 ? result - 1 : result + 1);
}

}  // namespace attnd::bias
