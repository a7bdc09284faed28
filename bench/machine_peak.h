// What the machine can do at most, measured with one kernel's instruction set.
#pragma once

#include <cstddef>
#include <vector>

#include "kernel/kernel.h"
#include "machine_loops.h"
#include "pages.h"

namespace attnd::bench {

// Keeps what all calls have measured. Not thread-safe.
class MachinePeak {
 public:
  // `pages`: of the memory that is read.
  MachinePeak(const kernel::Kernel& kernel, int threads, PageKind pages);

  // Times a loop of independent multiply-adds on every thread at once, for about a millisecond.
  void MeasureArithmetic();
  // Times reading memory that no cache holds, each thread its own part.
  void MeasureReading();
  // The same of the caller's memory, where it lies. Returns gigabytes per second, and keeps nothing.
  double MeasureReading(const std::byte* data, std::size_t size) const;

  double gflops() const { return gflops_; }
  // Require a call of MeasureReading().
  double best_gigabytes_per_second() const;
  double median_gigabytes_per_second() const;

 private:
  const MachineLoops& loops_;
  const int threads_;
  const PageKind pages_;
  PageBuffer memory_;
  double gflops_ = 0;
  std::vector<double> gigabytes_per_second_;
};

}  // namespace attnd::bench
