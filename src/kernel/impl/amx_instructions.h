// The AMX instructions as functions with registers as template arguments. Tests substitute an emulation, because few
// machines have AMX.
//
// Written as assembly because GCC 12's intrinsics take literal register numbers only and do not tell the compiler that
// a tile load reads memory.
#pragma once

#include "kernel/impl/packet.h"
#include "platform/platform.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

// What LDTILECFG reads: the shape of each register. Intel SDM volume 1, "Tile configuration".
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace attnd::kernel::ATTND_KERNEL_TAG

#if ATTND_AMX_EMULATED
#include "amx_emulated.h"
#else

namespace attnd::kernel::ATTND_KERNEL_TAG {

// Gives the registers their shapes and zeroes them.
ATTND_INLINE void TileConfigure(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }

// Returns to the initial state, so that the system need not save the registers.
ATTND_INLINE void TileRelease() { asm volatile("tilerelease"); }

template <int kTile>
ATTND_INLINE void TileZero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// Rows `stride` floats apart, from any address.
template <int kTile>
ATTND_INLINE void TileLoad(const float* from, std::int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride * 4) : "memory");
}
template <int kTile>
ATTND_INLINE void TileStore(float* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride * 4) : "memory");
}

// kSum += kA * kB: rows of bf16 pairs times columns of pairs, summed in fp32.
template <int kSum, int kA, int kB>
ATTND_INLINE void TileMultiplyAdd() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG

#endif
