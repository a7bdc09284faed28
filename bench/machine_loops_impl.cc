// One build of the loops. CMake compiles this file once per instruction set, like the kernel (cmake/AttndIsa.cmake).
#include "kernel/impl/packet.h"
#include "machine_loops.h"
#include "platform/platform.h"

namespace attnd::bench::ATTND_KERNEL_TAG {
namespace {

namespace ei = Eigen::internal;
using kernel::ATTND_KERNEL_TAG::kWidth;
using kernel::ATTND_KERNEL_TAG::Packet;

// Enough independent chains to hide the latency of all multiply units: two units of latency 4 or 5, or four with NEON.
// As many as fit into registers beside the two factors.
#if ATTND_AVX512F || ATTND_AARCH64
constexpr int kFmaChains = 24;
#else
constexpr int kFmaChains = 12;
#endif

float FmaLoop(std::int64_t rounds) {
  Packet acc[kFmaChains];
#pragma GCC unroll 24
  for (int i = 0; i < kFmaChains; ++i) acc[i] = ei::pset1<Packet>(static_cast<float>(i));
  const Packet factor = ei::pset1<Packet>(0.5f);
  const Packet addend = ei::pset1<Packet>(1.0f);
  for (std::int64_t n = 0; n < rounds; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kFmaChains; ++i) {
#if ATTND_AARCH64
      // NEON's instruction adds to its third operand: any other order would copy a register each time.
      acc[i] = ei::pmadd(factor, addend, acc[i]);
#else
      // Without a fused instruction, the product of two constants would be computed only once.
      acc[i] = ei::pmadd(acc[i], factor, addend);
#endif
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kFmaChains; ++i) acc[0] = ei::padd(acc[0], acc[i]);
  return ei::predux(acc[0]);
}

float ReadLoop(const std::byte* data, std::size_t bytes) {
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

}  // namespace

extern const MachineLoops kLoops;

const MachineLoops kLoops = {
    .kernel = ATTND_KERNEL_NAME,
    .fma_loop = FmaLoop,
    .fma_flops = 2 * kFmaChains * kWidth,
    .read_loop = ReadLoop,
};

}  // namespace attnd::bench::ATTND_KERNEL_TAG
