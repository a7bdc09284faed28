// A kernel that a test can hold in the middle of its work: what it takes to act while a call is being computed.
#pragma once

#include <cstdint>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernel/kernel.h"

namespace attnd::server {

// How long tests wait for what must happen.
inline constexpr absl::Duration kPatience = absl::Seconds(30);

// The best kernel of this CPU, whose threads wait before they advance a tile as long as it is held. Works of one item
// with few rows never advance a tile. Only one may live at a time. Thread-safe.
class HeldKernel {
 public:
  HeldKernel();
  ~HeldKernel();
  HeldKernel(const HeldKernel&) = delete;
  HeldKernel& operator=(const HeldKernel&) = delete;

  const kernel::Kernel& kernel() const { return kernel_; }

  void Hold() { SetMode(Mode::kHeld); }
  // Holds only the thread that took the last step. A call that several threads worked on ends on a thread of the
  // scheduler, while the first of its items may run on the thread that submits it.
  void HoldTheLastThread();
  void Release() { SetMode(Mode::kFree); }
  // Lets the threads go on, but each step takes a moment: a work of a thousand tiles lasts longer than kPatience unless
  // it is given up.
  void ReleaseSlowly() { SetMode(Mode::kSlow); }

  // Waits until a thread is held; false if none comes within kPatience.
  bool AwaitHeld();
  bool is_held() const;

  // Steps begun so far.
  std::int64_t steps() const;

 private:
  enum class Mode { kFree, kSlow, kHeld };
  void SetMode(Mode mode);
  void BeforeStep();

  kernel::Kernel kernel_;
  mutable absl::Mutex mutex_;
  Mode mode_ ABSL_GUARDED_BY(mutex_) = Mode::kFree;
  std::int64_t held_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t steps_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread::id last_thread_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::thread::id> held_thread_ ABSL_GUARDED_BY(mutex_);  // none: all threads are held
};

}  // namespace attnd::server
