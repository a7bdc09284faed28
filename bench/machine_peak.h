// What the machine can do at most, measured with one kernel's instruction set.
#pragma once

#include <cstddef>
#include <vector>

#include "kernel/kernel.h"

namespace attnd::bench {

// Keeps the best of all calls. Not thread-safe.
class MachinePeak {
 public:
  MachinePeak(const kernel::Kernel& kernel, int threads) : kernel_(kernel), threads_(threads) {}

  // Times a loop of independent multiply-adds on every thread at once, for about a millisecond.
  void MeasureArithmetic();
  // Times reading memory that no cache holds, each thread its own part.
  void MeasureReading();

  double gflops() const { return gflops_; }
  double gigabytes_per_second() const { return gigabytes_per_second_; }

 private:
  const kernel::Kernel& kernel_;
  const int threads_;
  std::vector<std::byte> memory_;
  double gflops_ = 0;
  double gigabytes_per_second_ = 0;
};

}  // namespace attnd::bench
