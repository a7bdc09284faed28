// The streams that stay open until the caller or the server ends them.
#pragma once

#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace attnd::server {

// A stream that can be ended from outside. It adds itself to its OpenStreams when it begins, and removes itself when
// gRPC says that it is over.
class OpenStream {
 public:
  // Finish it, after a write that is under way. Called at most once, under the lock of OpenStreams.
  virtual void End() = 0;
  // Cancel it, whatever is under way. Called under the lock of OpenStreams.
  virtual void Cancel() = 0;

 protected:
  ~OpenStream() = default;
};

// Ends all of them when the server stops, so that none holds the stop up. Thread-safe.
class OpenStreams {
 public:
  // If EndAll was called before, ends the stream at once.
  void Add(OpenStream* stream);
  void Remove(OpenStream* stream);

  // Ends all streams and waits until they are over; those that are not after `patience`, since their callers do not
  // read, are cancelled.
  void EndAll(absl::Duration patience);

 private:
  absl::Mutex mutex_;
  std::unordered_set<OpenStream*> streams_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace attnd::server
