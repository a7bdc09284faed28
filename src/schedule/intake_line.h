// The queue of messages that wait for a place: one of the few that are received at a time.
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

// What is received: a call's message, or the pieces of one call in sequence. Its owner keeps it at the same address
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
    kOutside,    // not joined, left, or lost its place because it took too long
    kWaiting,    // for a place
    kReceiving,  // has a place
    kInside,     // received and not done with: counts only against its caller's limit
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
  bool unmeasured_ = false;          // has begun, and its receive time is not measured yet
  IntakeEntry* previous_ = nullptr;  // among those being received, in the order in which they began
  IntakeEntry* next_ = nullptr;
};

// Places that keep this many threads busy, which both receive and compute.
inline int DefaultPlaces(int threads) { return std::max(8, 2 * threads); }

struct IntakeOptions {
  int places = 16;      // most entries that are received at a time
  int per_caller = 32;  // most entries of one caller that are being received, or received and not done with
  // An entry that takes much longer to receive than others (a slow sender) loses its place after a time between these
  // two.
  Clock::duration least_hold = std::chrono::milliseconds(20);
  Clock::duration most_hold = std::chrono::milliseconds(250);
  // Longest wait of an entry without a deadline.
  Clock::duration max_wait = Clock::duration::max();
};

// A wait that would be too long, in seconds.
struct TooLong {
  double estimate = 0;   // until it would be done with; without a deadline: until it would begin
  double come_back = 0;  // when the queue may be short enough
};

// If more messages arrive side by side than the machine can take, all of them arrive late. So only a few are received
// at a time. The next one is from the caller that has held places for the shortest time (start-time fair queueing:
// Goyal, Vin and Cheng, 1996), so that slow senders do not hold up the calls of others; within a caller, the one that
// is due first. Not thread-safe. Each operation is O(log n) unless noted.
class IntakeLine {
 public:
  explicit IntakeLine(const IntakeOptions& options) : options_(options) {}

  enum class Joined : std::uint8_t { kBegins, kWaits, kRefused };
  // Adds an entry that is outside. It begins at once, waits until Take returns it, or is refused because it would wait
  // too long; then `too_long` is set. `caller` is only compared. O(entries of its caller that are due before it). May
  // throw std::bad_alloc, and has then changed nothing.
  Joined Join(IntakeEntry& entry, const void* caller, Clock::time_point deadline, Clock::time_point now,
              TooLong& too_long);

  // Returns the next entry that may begin and gives it a place; null if there is none. If the entry can hardly be done
  // in time any more, it is outside instead, and `late` is set.
  IntakeEntry* Take(Clock::time_point now, std::optional<TooLong>& late);

  // The entry has been received: it frees its place. If it has lost its place already, only its receive time is
  // measured.
  void Received(IntakeEntry& entry, Clock::time_point now);
  // The entry is done with, or will not come. Returns true if it was still waiting.
  bool Leave(IntakeEntry& entry, Clock::time_point now);
  // Whether it is outside.
  static bool Outside(const IntakeEntry& entry) { return entry.place_ == IntakeEntry::Place::kOutside; }
  // Whether it has a place.
  static bool Receives(const IntakeEntry& entry) { return entry.place_ == IntakeEntry::Place::kReceiving; }

  // Takes their places from entries that are received for too long. Returns when the next one will lose its place;
  // max(): none.
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
  std::map<const void*, Caller> callers_;  // those with entries here
  IntakeEntry::Callers offered_;           // those whose next entry may begin once there is a place
  double clock_ = 0;                       // seconds: `used` of a caller that begins to wait now, at least
  IntakeEntry* oldest_ = nullptr;          // of those being received
  IntakeEntry* newest_ = nullptr;
  std::size_t waiting_ = 0;
  std::size_t lines_ = 0;  // callers with waiting entries
  int receiving_ = 0;
  std::uint64_t next_sequence_ = 0, next_turn_ = 0;
  WorkRate rate_;                   // entries that begin in a second, while entries wait
  Clock::time_point last_begun_{};  // of those; or when entries began to wait
  double inside_seconds_ = 0;       // moving average: from when an entry begins until it is done with
  double usual_seconds_ = 0;        // to receive an entry: most take no longer; 0 while unknown
};

struct IntakeEntry::Caller {
  const void* name = nullptr;
  std::set<IntakeEntry*, IsBefore> waiting;
  int inside = 0;          // entries that are being received, or not done with
  double used = 0;         // seconds that it has held places, plus the clock's value when it last began to wait
  std::uint64_t turn = 0;  // breaks ties: who was offered first
  // The node of `offered_` while the caller is not in it, so that offering it allocates nothing.
  Callers::node_type node;
};

}  // namespace attnd::schedule
