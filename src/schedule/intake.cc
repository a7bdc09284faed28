#include "schedule/intake.h"

#include <algorithm>

#include "absl/time/time.h"

namespace attnd::schedule {

Intake::Intake(const IntakeOptions& options) : look_(options.least_hold), line_(options), thread_([this] { Run(); }) {}

Intake::~Intake() {
  {
    absl::MutexLock lock(&mutex_);
    over_ = true;
    changed_.Signal();
  }
  thread_.join();
}

IntakeLine::Joined Intake::Join(Entry& entry, const void* caller, Clock::time_point deadline, TooLong& too_long) {
  const Clock::time_point now = Clock::now();
  absl::MutexLock lock(&mutex_);
  const IntakeLine::Joined joined = line_.Join(entry, caller, deadline, now, too_long);
  if (joined == IntakeLine::Joined::kRefused) ++refused_;
  if (joined == IntakeLine::Joined::kWaits && line_.waiting() == 1) changed_.Signal();
  return joined;
}

void Intake::Received(Entry& entry) {
  {
    absl::MutexLock lock(&mutex_);
    const bool had_place = IntakeLine::Receives(entry);
    line_.Received(entry, Clock::now());
    if (!had_place || line_.waiting() == 0) return;
  }
  LetIn();
}

// An entry that is outside frees no place. So an entry that is found late, and leaves, does not call LetIn from within
// LetIn.
bool Intake::Leave(Entry& entry) {
  bool waited = false;
  {
    absl::MutexLock lock(&mutex_);
    const bool made_room = !IntakeLine::Outside(entry);
    waited = line_.Leave(entry, Clock::now());
    if (!made_room || waited || line_.waiting() == 0) return waited;
  }
  LetIn();
  return waited;
}

bool Intake::Receives(const Entry& entry) const {
  absl::MutexLock lock(&mutex_);
  return IntakeLine::Receives(entry);
}

Intake::Use Intake::use() const {
  absl::MutexLock lock(&mutex_);
  return {static_cast<std::int64_t>(line_.waiting()), refused_, late_};
}

void Intake::LetIn() {
  while (true) {
    Entry* entry = nullptr;
    std::optional<TooLong> late;
    {
      absl::MutexLock lock(&mutex_);
      entry = static_cast<Entry*>(line_.Take(Clock::now(), late));  // all waiting entries are of this class
      if (entry == nullptr) return;
      if (late.has_value()) ++late_;
    }
    late.has_value() ? entry->Late(*late) : entry->Begin();
  }
}

void Intake::Run() {
  mutex_.Lock();
  while (!over_) {
    if (line_.waiting() == 0) {
      changed_.Wait(&mutex_);
      continue;
    }
    line_.Expire(Clock::now());
    mutex_.Unlock();
    LetIn();
    mutex_.Lock();
    if (over_ || line_.waiting() == 0) continue;
    // Other entries begin meanwhile, and the time that counts as too long changes, so look again soon.
    const Clock::time_point now = Clock::now();
    changed_.WaitWithTimeout(&mutex_, absl::FromChrono(std::min(line_.Expire(now) - now, look_)));
  }
  mutex_.Unlock();
}

}  // namespace attnd::schedule
