// The peak of the machine, measured with one kernel's instruction set.
#pragma once

#include <cstddef>
#include <vector>

#include "kernel/kernel.h"
#include "machine_loops.h"
#include "pages.h"

namespace attnd::bench {

// Collects the measurements of all calls. Not thread-safe.
class MachinePeak {
 public:
  // `pages`: for the memory that is read.
  MachinePeak(const kernel::Kernel& kernel, int threads, PageKind pages);

  // Times a loop of independent multiply-adds on every thread at once, for about a millisecond.
  void MeasureArithmetic();
  // Times reading memory that no cache holds; each thread reads its own part.
  void MeasureReading();
  // The same for the caller's memory. Returns gigabytes per second and keeps no result.
  double MeasureReading(const std::byte* data, std::size_t size) const;

  double gflops() const { return gflops_; }
  // MeasureReading() must have been called.
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
