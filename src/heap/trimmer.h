// Returns memory that calls no longer need to the system.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace attnd::heap {

// How much free memory to keep: twice the most that calls held at once during the last kIntervals intervals, at least
// kFloorBytes. Twice, because gRPC holds messages before and after the calls do. Not thread-safe.
class KeptMemory {
 public:
  static constexpr std::size_t kIntervals = 6;
  static constexpr std::size_t kFloorBytes = std::size_t{16} << 20;

  // `peak_bytes`: the most bytes that calls held at once in the interval that has just ended. Returns the bytes to
  // keep.
  std::size_t Next(std::int64_t peak_bytes);

 private:
  std::array<std::int64_t, kIntervals> peaks_{};
  std::size_t next_ = 0;
};

// A thread that trims the heap to KeptMemory once per interval: 35 seconds after a burst, only the floor is kept. The
// destructor ends the thread. Starts no thread if tcmalloc is not in force.
class Trimmer {
 public:
  static constexpr absl::Duration kInterval = absl::Seconds(5);

  // `take_peak_bytes` is called on the thread; what it refers to must outlive this.
  explicit Trimmer(std::function<std::int64_t()> take_peak_bytes, absl::Duration interval = kInterval);
  ~Trimmer();
  Trimmer(const Trimmer&) = delete;
  Trimmer& operator=(const Trimmer&) = delete;

 private:
  void Run();

  const std::function<std::int64_t()> take_peak_bytes_;
  const absl::Duration interval_;
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::heap
