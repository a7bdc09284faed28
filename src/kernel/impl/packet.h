// The packets of this build's instruction set and what the kernel computes with them.
//
// Everything under impl/ is compiled once per instruction set, in a namespace of that build and with Eigen's namespace
// renamed, so that the linker can never use one build's code for another. For the same reason nothing here uses the
// standard library's templates, except std::bit_cast, which is inlined.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernel/kernel.h"
#include "kernel/visible.h"
#include "platform/platform.h"

#define ATTND_INLINE inline __attribute__((always_inline))

namespace attnd::kernel::ATTND_KERNEL_TAG {

namespace ei = Eigen::internal;

using Packet = ei::packet_traits<float>::type;
using IntPacket = ei::unpacket_traits<Packet>::integer_packet;

inline constexpr std::int64_t kWidth = ei::unpacket_traits<Packet>::size;

// Block sizes for 32 vector registers, or for 16: the largest blocks of scores and of values whose accumulators fit
// beside one packet per column and one broadcast.
#if ATTND_AVX512F || ATTND_AARCH64
inline constexpr int kScoreRows = 8;
inline constexpr int kScoreCols = 3;
inline constexpr int kValueRows = 6;
inline constexpr int kValueCols = 4;
#else
inline constexpr int kScoreRows = 6;
inline constexpr int kScoreCols = 2;
inline constexpr int kValueRows = 6;
inline constexpr int kValueCols = 2;
#endif

inline constexpr std::int64_t kPanel = kScoreCols * kWidth;  // keys of one packed panel
inline constexpr std::int64_t kQueryTile = 96;               // rows of a tile: keys and values are read once for all
inline constexpr std::int64_t kKeyTile = 384;                // a multiple of kPanel
inline constexpr std::int64_t kDirectRows = 8;
inline constexpr std::int64_t kStepRows = 4;      // rows of a direct call that take a step's values together
inline constexpr std::int64_t kDirectKeys = 256;  // keys of a step of a direct call
static_assert(kQueryTile % kScoreRows == 0 && kQueryTile % kValueRows == 0 && kQueryTile % kWidth == 0);
static_assert(kKeyTile % kPanel == 0);

inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kInfinity = __builtin_inff();

template <typename T>
ATTND_INLINE constexpr T Min(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
ATTND_INLINE constexpr T Max(T a, T b) {
  return a > b ? a : b;
}
ATTND_INLINE constexpr std::int64_t RoundUp(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// 1 + x * (terms[4] + x * (terms[3] + ... x * terms[0])).
ATTND_INLINE Packet OnePlus(const float (&terms)[5], Packet x) {
  Packet sum = ei::pset1<Packet>(terms[0]);
#pragma GCC unroll 4
  for (int i = 1; i < 5; ++i) sum = ei::pmadd(sum, x, ei::pset1<Packet>(terms[i]));
  return ei::pmadd(sum, x, ei::pset1<Packet>(1.0f));
}

// 2^x for x <= 0: relative error below 2e-7, exactly 1 at 0 and exactly 0 at -inf.
#if ATTND_AVX512DQ
// x = n + f with n = floor(x), 2^f by a minimax polynomial on [0, 1] with constant term 1. The two instructions that
// extract f and apply n to the exponent save a third of the arithmetic of the version below, and need no range checks.
ATTND_INLINE Packet Exp2(Packet x) {
  constexpr int kMinusFloor = 0x09;
  const Packet f = _mm512_reduce_ps(x, kMinusFloor);
  constexpr float kTerms[] = {0x1.e96910p-10f, 0x1.277c1cp-7f, 0x1.c91c10p-5f, 0x1.ebdb6ap-3f, 0x1.62e4bap-1f};
  const Packet p = OnePlus(kTerms, f);
  return _mm512_scalef_ps(p, x);
}
#else
// Exactly 0 for x <= -127. x = n + f with n = round(x), 2^f by a minimax polynomial on [-1/2, 1/2] with constant term
// 1, and 2^n by moving the low bits of n + 127, which the rounding constant leaves in the mantissa, to the exponent.
ATTND_INLINE Packet Exp2(Packet x) {
  const Packet rounder = ei::pset1<Packet>(12582912.0f + 127.0f);
  x = ei::pmax(x, ei::pset1<Packet>(-127.0f));
  const Packet shifted = ei::padd(x, rounder);
  const Packet f = ei::psub(x, ei::psub(shifted, rounder));
  constexpr float kTerms[] = {0x1.5bba14p-10f, 0x1.3cea88p-7f, 0x1.c6b752p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f};
  const Packet p = OnePlus(kTerms, f);
  const IntPacket exponent = ei::plogical_shift_left<23>(ei::preinterpret<IntPacket>(shifted));
  return ei::pmul(p, ei::preinterpret<Packet>(exponent));
}
#endif

ATTND_INLINE float Exp2(float x) { return ei::pfirst(Exp2(ei::pset1<Packet>(x))); }

// Packets in a row of values.
ATTND_INLINE std::int64_t ValuePackets(const Attention& a) { return (a.value_head_dim + kWidth - 1) / kWidth; }

// Columns of values that are accumulated together: value packets are spread evenly over the fewest chunks that hold at
// most kValueCols packets each.
struct ValueChunk {
  std::int64_t first_packet;
  std::int64_t packets;
};
ATTND_INLINE std::int64_t ValueChunks(std::int64_t packets) { return (packets + kValueCols - 1) / kValueCols; }
ATTND_INLINE ValueChunk ChunkAt(std::int64_t packets, std::int64_t chunk) {
  const std::int64_t chunks = ValueChunks(packets);
  const std::int64_t base = packets / chunks;
  const std::int64_t longer = packets % chunks;
  return {chunk * base + Min(chunk, longer), base + (chunk < longer ? 1 : 0)};
}

// Cuts a block of memory into aligned arrays; with a null block it only counts.
class Carver {
 public:
  explicit Carver(std::byte* block) : block_(block) {}
  template <typename T>
  T* Take(std::int64_t count) {
    const std::size_t at = used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + at);
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* block_;
  std::size_t used_ = 0;
};

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
