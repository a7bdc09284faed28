// Streams that stay open until the caller or the server ends them.
#pragma once

#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace attnd::server {

// A stream that the server can end. It adds itself to its OpenStreams when it begins, and removes itself when gRPC is
// done with it.
class OpenStream {
 public:
  // Finishes the stream, after a write that is under way. OpenStreams calls it at most once, with its lock held.
  virtual void End() = 0;
  // Cancels the stream, even during a write. OpenStreams calls it with its lock held.
  virtual void Cancel() = 0;

 protected:
  ~OpenStream() = default;
};

// Ends all streams when the server stops, so that none delays the stop. Thread-safe.
class OpenStreams {
 public:
  // Ends the stream at once if EndAll was called before.
  void Add(OpenStream* stream);
  void Remove(OpenStream* stream);

  // Ends all streams and waits until they are over, for at most `patience`. Then cancels those that are left, whose
  // callers do not read.
  void EndAll(absl::Duration patience);

 private:
  absl::Mutex mutex_;
  std::unordered_set<OpenStream*> streams_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace attnd::server
