// Counts the calls in flight, and closes for good when the server stops.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace attnd::server {

// Thread-safe.
class CallGate {
 public:
  // False once closed: the call is to be refused with UNAVAILABLE. Otherwise Leave must follow when it is over.
  [[nodiscard]] bool Enter();
  // For more of a call that has begun (a piece of a stream), also once closed. Leave must follow.
  void EnterMore();
  void Leave();

  std::int64_t inside() const;

  // Lets nobody in from now on.
  void Close();

 private:
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::int64_t inside_ ABSL_GUARDED_BY(mutex_) = 0;
};

// A way through the gate that has been entered, left when this goes.
struct LeaveGate {
  void operator()(CallGate* gate) const { gate->Leave(); }
};
using Pass = std::unique_ptr<CallGate, LeaveGate>;

}  // namespace attnd::server
