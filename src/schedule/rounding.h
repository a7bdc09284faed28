// Division and alignment of counts and sizes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attnd::schedule {

inline constexpr std::size_t kAlignment = 64;  // bytes: of everything that a kernel packs or accumulates

// a / b, rounded up. Both are positive, and a + b does not overflow.
inline std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline std::size_t Aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace attnd::schedule
