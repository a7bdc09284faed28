// What the machine can do at most with this instruction set: measured by the benchmark, beside the kernel.
#pragma once

#include "kernel/impl/packet.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Enough independent chains to hide the latency of two multiply-adds a cycle.
inline constexpr int kFmaChains = 12;

inline float FmaLoop(std::int64_t rounds) {
  Packet acc[kFmaChains];
#pragma GCC unroll 12
  for (int i = 0; i < kFmaChains; ++i) acc[i] = ei::pset1<Packet>(static_cast<float>(i));
  Packet factor = ei::pset1<Packet>(0.5f);
  Packet addend = ei::pset1<Packet>(1.0f);
  for (std::int64_t n = 0; n < rounds; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaChains; ++i) acc[i] = ei::pmadd(acc[i], factor, addend);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kFmaChains; ++i) acc[0] = ei::padd(acc[0], acc[i]);
  return ei::predux(acc[0]);
}

inline float ReadLoop(const std::byte* data, std::size_t bytes) {
  const float* from = reinterpret_cast<const float*>(data);
  const std::int64_t count = static_cast<std::int64_t>(bytes / sizeof(float)) / (4 * kWidth) * (4 * kWidth);
  Packet sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = ei::pset1<Packet>(0.0f);
  for (std::int64_t at = 0; at < count; at += 4 * kWidth) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] = ei::padd(sum[i], ei::ploadu<Packet>(from + at + i * kWidth));
  }
  return ei::predux(ei::padd(ei::padd(sum[0], sum[1]), ei::padd(sum[2], sum[3])));
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
