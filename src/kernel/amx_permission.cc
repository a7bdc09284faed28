#include "kernel/amx_permission.h"

#include "platform/platform.h"

#if ATTND_X86_64 && ATTND_LINUX

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace attnd::kernel {
namespace {

// Uses CPUID and XGETBV because the compilers that build this may be older than their own names for AMX.
// Bits: Intel SDM volume 2, CPUID; volume 1, "XSAVE-supported features".
bool CpuHasAmx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kXsaveEnabled = 1u << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsaveEnabled) == 0) return false;
  constexpr unsigned kAmx = 1u << 22 | 1u << 24;  // AMX-BF16, AMX-TILE
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmx) == kAmx;
}

bool SystemSavesTiles() {
  unsigned low = 0, high = 0;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 1u << 17 | 1u << 18;  // TILECFG, TILEDATA
  return (low & kTileState) == kTileState;
}

}  // namespace

bool RequestAmx() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return CpuHasAmx() && SystemSavesTiles() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace attnd::kernel

#else

namespace attnd::kernel {

bool RequestAmx() { return false; }

}  // namespace attnd::kernel

#endif
