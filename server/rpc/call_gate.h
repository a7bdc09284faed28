// Counts the calls in flight; refuses new ones once the server stops.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::server {

// Thread-safe.
class CallGate {
 public:
  // Counts a call, and returns true; the caller must call Leave when the call is over. Returns false once closed:
  // refuse the call with UNAVAILABLE.
  [[nodiscard]] bool Enter();
  // Counts a piece of a stream that has begun, even if closed. The caller must call Leave.
  void EnterMore();
  void Leave();

  std::int64_t inside() const;

  // From now on Enter returns false.
  void Close();

 private:
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::int64_t inside_ ABSL_GUARDED_BY(mutex_) = 0;
};

// A call counted by the gate; calls Leave when it is destroyed.
struct LeaveGate {
  void operator()(CallGate* gate) const { gate->Leave(); }
};
using Pass = std::unique_ptr<CallGate, LeaveGate>;

}  // namespace attnd::server
