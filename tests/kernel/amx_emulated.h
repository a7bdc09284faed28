// AMX's instructions in plain C++, in place of impl/amx_instructions.h, after the operations in Intel's SDM volume 2
// (LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TILERELEASE, TDPBF16PS). What a CPU would refuse with a fault ends the
// program.
#pragma once

#include "kernel/impl/packet.h"

namespace attnd::kernel::ATTND_KERNEL_TAG {

struct TileFile {
  bool configured;
  std::uint8_t rows[8];
  std::uint16_t row_bytes[8];
  std::uint32_t data[8][16][16];
};
inline thread_local constinit TileFile tile_file{};

ATTND_INLINE void FaultUnless(bool right) {
  if (!right) __builtin_trap();
}

inline void TileConfigure(const TileConfig& config) {
  FaultUnless(config.palette == 1 && config.start_row == 0);
  TileFile& file = tile_file;
  std::memset(&file, 0, sizeof file);
  for (int t = 0; t < 16; ++t) {
    const int rows = config.rows[t];
    const int row_bytes = config.row_bytes[t];
    if (t >= 8) {
      FaultUnless(rows == 0 && row_bytes == 0);
      continue;
    }
    FaultUnless(rows <= 16 && row_bytes <= 64 && (rows == 0) == (row_bytes == 0));
    file.rows[t] = config.rows[t];
    file.row_bytes[t] = config.row_bytes[t];
  }
  file.configured = true;
}

inline void TileRelease() { std::memset(&tile_file, 0, sizeof(TileFile)); }

// The register file, if `tile` may be used.
inline TileFile& ConfiguredFile(int tile) {
  TileFile& file = tile_file;
  FaultUnless(file.configured && file.rows[tile] != 0);
  return file;
}

template <int kTile>
inline void TileZero() {
  std::memset(ConfiguredFile(kTile).data[kTile], 0, sizeof(TileFile::data[kTile]));
}

template <int kTile>
inline void TileLoad(const float* from, std::int64_t stride) {
  TileZero<kTile>();
  TileFile& file = tile_file;
  for (int r = 0; r < file.rows[kTile]; ++r) std::memcpy(file.data[kTile][r], from + r * stride, file.row_bytes[kTile]);
}

template <int kTile>
inline void TileStore(float* to, std::int64_t stride) {
  const TileFile& file = ConfiguredFile(kTile);
  for (int r = 0; r < file.rows[kTile]; ++r) std::memcpy(to + r * stride, file.data[kTile][r], file.row_bytes[kTile]);
}

// Denormals are zeros, going in and coming out, whatever MXCSR says.
ATTND_INLINE float FlushDenormal(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x; }
ATTND_INLINE float FloatOfBits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return FlushDenormal(x);
}

// The first numbers of all pairs are summed apart from the second ones, each by fused multiply-adds that begin at zero;
// then the two sums are added, and that sum to the register.
template <int kSum, int kA, int kB>
inline void TileMultiplyAdd() {
  static_assert(kSum != kA && kSum != kB && kA != kB);
  ConfiguredFile(kA);
  ConfiguredFile(kB);
  TileFile& file = ConfiguredFile(kSum);
  const int pairs = file.row_bytes[kA] / 4;
  const int columns = file.row_bytes[kSum] / 4;
  FaultUnless(file.row_bytes[kA] % 4 == 0 && file.row_bytes[kB] % 4 == 0 && file.row_bytes[kSum] % 4 == 0);
  FaultUnless(file.rows[kSum] == file.rows[kA] && pairs == file.rows[kB] && file.row_bytes[kSum] == file.row_bytes[kB]);
  for (int m = 0; m < file.rows[kSum]; ++m) {
    float first[16] = {};
    float second[16] = {};
    for (int k = 0; k < pairs; ++k) {
      const std::uint32_t a = file.data[kA][m][k];
      for (int n = 0; n < columns; ++n) {
        const std::uint32_t b = file.data[kB][k][n];
        first[n] = FlushDenormal(__builtin_fmaf(FloatOfBits(a << 16), FloatOfBits(b << 16), first[n]));
        second[n] = FlushDenormal(__builtin_fmaf(FloatOfBits(a & 0xffff0000), FloatOfBits(b & 0xffff0000), second[n]));
      }
    }
    for (int n = 0; n < columns; ++n) {
      const float sum = FlushDenormal(FloatOfBits(file.data[kSum][m][n]) + FlushDenormal(first[n] + second[n]));
      std::memcpy(&file.data[kSum][m][n], &sum, sizeof sum);
    }
  }
}

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
