// Lets few messages be received at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "schedule/intake_line.h"

namespace attnd::schedule {

// An IntakeLine for many threads, with one of its own that looks after those that are received for too long while
// others wait. Thread-safe; outlives its entries.
class Intake {
 public:
  // One that is received.
  class Entry : public IntakeEntry {
   public:
    // It has waited, and may be received now. On any thread, without a lock; must not throw. The entry is not to go
    // before this returns, unless it leads to that.
    virtual void Begin() = 0;
    // It has waited, but can hardly be done with in time any more: it has left.
    virtual void Late(const TooLong& too_long) = 0;

   protected:
    ~Entry() = default;
  };

  // Starts the thread. Throws std::system_error if the system has none left.
  explicit Intake(const IntakeOptions& options);
  // Nothing may be inside.
  ~Intake();
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  // See IntakeLine. kWaits: Begin or Late follows, perhaps before this returns, unless Leave comes before.
  IntakeLine::Joined Join(Entry& entry, const void* caller, Clock::time_point deadline, TooLong& too_long)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Received(Entry& entry) ABSL_LOCKS_EXCLUDED(mutex_);
  // True: it waited, and neither Begin nor Late follows.
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

  const Clock::duration look_;  // how often, while there is a line
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;  // the line began, or the end has come
  IntakeLine line_ ABSL_GUARDED_BY(mutex_);
  std::int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t late_ ABSL_GUARDED_BY(mutex_) = 0;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::schedule
