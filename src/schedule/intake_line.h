// Whose turn it is to be received: the line before the few places.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "schedule/turns.h"
#include "schedule/work_rate.h"

namespace attnd::schedule {

class IntakeLine;

// One that is received: a call's message, or the pieces of a call that follow each other. Its owner keeps it in place
// until it has left.
class IntakeEntry {
 public:
  IntakeEntry() = default;
  IntakeEntry(const IntakeEntry&) = delete;
  IntakeEntry& operator=(const IntakeEntry&) = delete;

 protected:
  ~IntakeEntry() = default;

 private:
  friend class IntakeLine;
  enum class Place : std::uint8_t {
    kOutside,    // not here, or left behind since it took too long
    kWaiting,    // for a place
    kReceiving,  // has one
    kInside,     // is received, and not done with: counts for its caller alone
  };
  struct Caller;
  struct IsBefore {
    bool operator()(const IntakeEntry* a, const IntakeEntry* b) const {
      return a->due_ != b->due_ ? a->due_ < b->due_ : a->sequence_ < b->sequence_;
    }
  };
  Place place_ = Place::kOutside;
  Caller* of_ = nullptr;
  Clock::time_point due_;
  bool has_deadline_ = false;
  std::uint64_t sequence_ = 0;
  Clock::time_point began_;
  IntakeEntry* previous_ = nullptr;  // among those that are received, in the order of their begin
  IntakeEntry* next_ = nullptr;
};

struct IntakeOptions {
  int places = 16;      // so many are received at a time
  int per_caller = 32;  // so many of one caller are received, or received and not done with
  // Who is received for longer has a slow sender, and counts no more.
  Clock::duration hold = std::chrono::milliseconds(250);
  // What one without a deadline may wait.
  Clock::duration max_wait = Clock::duration::max();
};

// A wait that would be too long, in seconds.
struct TooLong {
  double estimate = 0;   // until it would be done with; without a deadline: until it would begin
  double come_back = 0;  // when the line may be short enough
};

// Messages that arrive side by side all arrive late, when there are more than the machine can take. So few are received
// at a time: callers take turns (round robin), and of one caller's the one that is due first goes first. Not
// thread-safe. O(log n) each, unless said otherwise.
class IntakeLine {
 public:
  explicit IntakeLine(const IntakeOptions& options) : options_(options) {}

  enum class Joined : std::uint8_t { kBegins, kWaits, kRefused };
  // An entry that is outside joins. It begins at once, or waits until Take returns it, or is refused since it would
  // wait for too long: `too_long` is set then. `caller` is only compared. O(those of its caller that are due before it,
  // and callers). May throw std::bad_alloc, and then has changed nothing.
  Joined Join(IntakeEntry& entry, const void* caller, Clock::time_point deadline, Clock::time_point now,
              TooLong& too_long);

  // The next one that may begin, which has a place from now on; null if there is none. If it can hardly be done with in
  // time any more, it is outside again instead, and `late` says so.
  IntakeEntry* Take(Clock::time_point now, std::optional<TooLong>& late);

  // It is received, and its place free. Nothing happens if it has none.
  void Received(IntakeEntry& entry);
  // It is done with, or will not come. True if it still waited.
  bool Leave(IntakeEntry& entry, Clock::time_point now);
  // Whether it has a place.
  static bool Receives(const IntakeEntry& entry) { return entry.place_ == IntakeEntry::Place::kReceiving; }

  // Those that are received for too long give up their places. Returns when the next one will; max(): none does.
  Clock::time_point Expire(Clock::time_point now);

  std::size_t waiting() const { return waiting_; }
  int receiving() const { return receiving_; }

 private:
  using Caller = IntakeEntry::Caller;
  bool TooLongFor(const IntakeEntry& entry, Clock::time_point now, TooLong& too_long) const;
  double Before(const IntakeEntry& entry, double enough) const;
  void Begin(IntakeEntry& entry, Clock::time_point now);
  void EndReceiving(IntakeEntry& entry);
  void Offer(Caller& caller);
  void ForgetIfIdle(Caller& caller);

  const IntakeOptions options_;
  std::map<const void*, Caller> callers_;  // that have entries here
  Caller* first_ = nullptr;                // of those whose next entry may begin once there is a place: in turn
  Caller* last_ = nullptr;
  IntakeEntry* oldest_ = nullptr;  // of those that are received
  IntakeEntry* newest_ = nullptr;
  std::size_t waiting_ = 0;
  int receiving_ = 0;
  std::uint64_t next_sequence_ = 0;
  WorkRate rate_;                   // entries that begin in a second, while there is a line
  Clock::time_point last_begun_{};  // of those; or when the line began
  double inside_seconds_ = 0;       // moving average: from an entry's begin until it is done with
};

struct IntakeEntry::Caller {
  const void* name = nullptr;
  std::set<IntakeEntry*, IsBefore> waiting;
  int inside = 0;          // are received, or are not done with
  bool offered = false;    // stands among those whose next entry may begin
  Caller* next = nullptr;  // there
};

}  // namespace attnd::schedule
