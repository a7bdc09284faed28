// Loops that reach the peak of the machine with one instruction set. One build per kernel, with the kernel's flags
// (cmake/AttndIsa.cmake). They belong to the benchmark and are not part of attnd.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attnd::bench {

// The functions of one build. Thread-safe. The results exist only to keep the compiler from dropping the work.
struct MachineLoops {
  const char* kernel;  // name of the kernel with the same instruction set

  // Runs `rounds` rounds of independent multiply-adds, of `fma_flops` floating point operations each.
  float (*fma_loop)(std::int64_t rounds);
  std::int64_t fma_flops;

  // Reads `bytes` bytes in order.
  float (*read_loop)(const std::byte* data, std::size_t bytes);
};

}  // namespace attnd::bench
