#include "machine_peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <thread>

#include "platform/platform.h"

namespace attnd::bench {

// Defined by each build of machine_loops_impl.cc. Unconditional: a kernel that was chosen can run here, and its loops
// need the same instructions.
#define ATTND_DECLARE_KERNEL(tag, supported) \
  namespace tag {                            \
  extern const MachineLoops kLoops;          \
  }
#include "kernel/builds.inc"
#undef ATTND_DECLARE_KERNEL

namespace {

#define ATTND_DECLARE_KERNEL(tag, supported) &tag::kLoops,
constexpr const MachineLoops* kAllLoops[] = {
#include "kernel/builds.inc"
};
#undef ATTND_DECLARE_KERNEL

const MachineLoops& LoopsOf(const kernel::Kernel& kernel) {
  for (const MachineLoops* loops : kAllLoops) {
    if (std::string_view(loops->kernel) == kernel.name) return *loops;
  }
  std::fprintf(stderr, "attnd_bench: no loops for the kernel %s\n", kernel.name);
  std::abort();
}

constexpr std::size_t kReadBytes = std::size_t{256} << 20;

std::atomic<float> sink;  // keeps the loops' results alive

// Seconds from the moment when all threads are ready until the last one returns from `work(thread)`.
double TimeTogether(int threads, const std::function<float(int)>& work) {
  using Clock = std::chrono::steady_clock;
  if (threads == 1) {
    const Clock::time_point start = Clock::now();
    sink = work(0);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  std::atomic<int> waiting{threads};
  std::vector<Clock::time_point> starts(static_cast<std::size_t>(threads));
  std::vector<Clock::time_point> ends(starts.size());
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      --waiting;
      while (waiting > 0) std::this_thread::yield();
      starts[static_cast<std::size_t>(t)] = Clock::now();
      sink = work(t);
      ends[static_cast<std::size_t>(t)] = Clock::now();
    });
  }
  for (std::thread& thread : pool) thread.join();
  return std::chrono::duration<double>(*std::max_element(ends.begin(), ends.end()) -
                                       *std::min_element(starts.begin(), starts.end()))
      .count();
}

}  // namespace

MachinePeak::MachinePeak(const kernel::Kernel& kernel, int threads, PageKind pages)
    : loops_(LoopsOf(kernel)), threads_(threads), pages_(pages) {}

void MachinePeak::MeasureArithmetic() {
  constexpr std::int64_t kRounds = 1 << 19;
  const double seconds = TimeTogether(threads_, [this](int) { return loops_.fma_loop(kRounds); });
  const double flops = static_cast<double>(kRounds * loops_.fma_flops) * threads_;
  gflops_ = std::max(gflops_, flops / seconds / 1e9);
}

void MachinePeak::MeasureReading() {
  if (memory_.empty()) {
    memory_ = PageBuffer(kReadBytes, pages_);
    std::memset(memory_.data(), 1, kReadBytes);  // pages that were never written all map to one page of zeros
  }
  gigabytes_per_second_.push_back(MeasureReading(memory_.data(), memory_.size()));
}

double MachinePeak::MeasureReading(const std::byte* data, std::size_t size) const {
  const std::size_t part = size / static_cast<std::size_t>(threads_) / 64 * 64;
  const double seconds = TimeTogether(threads_, [this, data, part](int t) {
    return loops_.read_loop(data + static_cast<std::size_t>(t) * part, part);
  });
  return static_cast<double>(part) * threads_ / seconds / 1e9;
}

double MachinePeak::best_gigabytes_per_second() const {
  return *std::max_element(gigabytes_per_second_.begin(), gigabytes_per_second_.end());
}

double MachinePeak::median_gigabytes_per_second() const {
  std::vector<double> sorted = gigabytes_per_second_;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

}  // namespace attnd::bench
