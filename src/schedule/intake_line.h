// Whose turn it is to be received: the line before the few places.
#pragma once

#include <algorithm>
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
  struct HasUsedLess {
    bool operator()(const Caller* a, const Caller* b) const;
  };
  using Callers = std::set<Caller*, HasUsedLess>;
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
  bool unmeasured_ = false;          // has begun, and is not received
  IntakeEntry* previous_ = nullptr;  // among those that are received, in the order of their begin
  IntakeEntry* next_ = nullptr;
};

// Places that keep this many threads, which receive and compute, busy.
inline int DefaultPlaces(int threads) { return std::max(8, 2 * threads); }

struct IntakeOptions {
  int places = 16;      // the most that are received at a time
  int per_caller = 32;  // the most of one caller that are received, or are received and not done with
  // Who takes much longer to be received than others do has a slow sender, and counts no more: after a time between
  // these.
  Clock::duration least_hold = std::chrono::milliseconds(20);
  Clock::duration most_hold = std::chrono::milliseconds(250);
  // What one without a deadline may wait.
  Clock::duration max_wait = Clock::duration::max();
};

// A wait that would be too long, in seconds.
struct TooLong {
  double estimate = 0;   // until it would be done with; without a deadline: until it would begin
  double come_back = 0;  // when the line may be short enough
};

// Messages that arrive side by side all arrive late, when there are more than the machine can take. So few are received
// at a time. The next one is of the caller that has held places for the shortest time (start-time fair queueing: Goyal,
// Vin and Cheng, 1996), so that slow senders do not hold up the calls of others, and of one caller's the one that is
// due first. Not thread-safe. O(log n) each, unless said otherwise.
class IntakeLine {
 public:
  explicit IntakeLine(const IntakeOptions& options) : options_(options) {}

  enum class Joined : std::uint8_t { kBegins, kWaits, kRefused };
  // An entry that is outside joins. It begins at once, or waits until Take returns it, or is refused since it would
  // wait for too long: `too_long` is set then. `caller` is only compared. O(those of its caller that are due before
  // it). May throw std::bad_alloc, and then has changed nothing.
  Joined Join(IntakeEntry& entry, const void* caller, Clock::time_point deadline, Clock::time_point now,
              TooLong& too_long);

  // The next one that may begin, which has a place from now on; null if there is none. If it can hardly be done with in
  // time any more, it is outside again instead, and `late` says so.
  IntakeEntry* Take(Clock::time_point now, std::optional<TooLong>& late);

  // It is received, and its place free. Nothing happens if it has none.
  void Received(IntakeEntry& entry, Clock::time_point now);
  // It is done with, or will not come. True if it still waited.
  bool Leave(IntakeEntry& entry, Clock::time_point now);
  // Whether it is outside.
  static bool Outside(const IntakeEntry& entry) { return entry.place_ == IntakeEntry::Place::kOutside; }
  // Whether it has a place.
  static bool Receives(const IntakeEntry& entry) { return entry.place_ == IntakeEntry::Place::kReceiving; }

  // Those that are received for too long give up their places. Returns when the next one will; max(): none does.
  Clock::time_point Expire(Clock::time_point now);

  std::size_t waiting() const { return waiting_; }
  int receiving() const { return receiving_; }

 private:
  using Caller = IntakeEntry::Caller;
  Caller& CallerOf(const void* name);
  bool TooLongFor(const IntakeEntry& entry, Clock::time_point now, TooLong& too_long) const;
  double Before(const IntakeEntry& entry, double enough) const;
  void Begin(IntakeEntry& entry, Clock::time_point now);
  void EndReceiving(IntakeEntry& entry, Clock::time_point now);
  void Measure(IntakeEntry& entry, Clock::time_point now);
  Clock::duration Hold() const;
  void Offer(Caller& caller);
  void Withhold(Caller& caller);
  void ForgetIfIdle(Caller& caller);

  const IntakeOptions options_;
  std::map<const void*, Caller> callers_;  // that have entries here
  IntakeEntry::Callers offered_;           // those of them whose next entry may begin once there is a place
  double clock_ = 0;                       // seconds: `used` of the caller that was last given a place
  IntakeEntry* oldest_ = nullptr;          // of those that are received
  IntakeEntry* newest_ = nullptr;
  std::size_t waiting_ = 0;
  std::size_t lines_ = 0;  // callers of whom some wait
  int receiving_ = 0;
  std::uint64_t next_sequence_ = 0, next_turn_ = 0;
  WorkRate rate_;                   // entries that begin in a second, while there is a line
  Clock::time_point last_begun_{};  // of those; or when the line began
  double inside_seconds_ = 0;       // moving average: from an entry's begin until it is done with
  double usual_seconds_ = 0;        // to receive an entry: most take no longer; 0 while nothing is known
};

struct IntakeEntry::Caller {
  const void* name = nullptr;
  std::set<IntakeEntry*, IsBefore> waiting;
  int inside = 0;          // are received, or are not done with
  double used = 0;         // seconds that it has held places, from the clock's value when it last came to the line
  std::uint64_t turn = 0;  // breaks ties: who was offered first
  // Its place among those that are offered, while it is not there: to come back takes no memory.
  Callers::node_type node;
};

}  // namespace attnd::schedule
