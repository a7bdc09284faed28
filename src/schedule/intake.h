// Limits how many messages are received at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "schedule/intake_line.h"

namespace attnd::schedule {

// A thread-safe IntakeLine with a thread of its own, which takes places away from entries that are received for too
// long while others wait. Must outlive its entries.
class Intake {
 public:
  // An entry with callbacks.
  class Entry : public IntakeEntry {
   public:
    // The entry has waited and may be received now. Called on any thread, without a lock; must not throw. The entry
    // must exist until this returns, unless this call itself leads to its end.
    virtual void Begin() = 0;
    // The entry has waited, but can hardly be done in time any more; it has left.
    virtual void Late(const TooLong& too_long) = 0;

   protected:
    ~Entry() = default;
  };

  // Starts the thread. Throws std::system_error if the system has none left.
  explicit Intake(const IntakeOptions& options);
  // All entries must have left.
  ~Intake();
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  // See IntakeLine. If it returns kWaits, Begin or Late follows, perhaps before this returns, unless Leave comes first.
  IntakeLine::Joined Join(Entry& entry, const void* caller, Clock::time_point deadline, TooLong& too_long)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Received(Entry& entry) ABSL_LOCKS_EXCLUDED(mutex_);
  // Returns true if the entry was waiting; then neither Begin nor Late follows.
  bool Leave(Entry& entry) ABSL_LOCKS_EXCLUDED(mutex_);
  bool Receives(const Entry& entry) const ABSL_LOCKS_EXCLUDED(mutex_);

  struct Use {
    std::int64_t waiting = 0;
    std::int64_t refused = 0;  // since the start
    std::int64_t late = 0;
  };
  Use use() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void LetIn() ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const Clock::duration look_;  // how often to look while entries wait
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;  // an entry waits, or over_ is set
  IntakeLine line_ ABSL_GUARDED_BY(mutex_);
  std::int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t late_ ABSL_GUARDED_BY(mutex_) = 0;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::schedule
