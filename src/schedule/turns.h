// Which waiting job's turn it is.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

namespace attnd::schedule {

// The clock of deadlines and durations: monotonic, never adjusted like the time of day.
using Clock = std::chrono::steady_clock;

class Turns;

// A job that waits, or has waited and may wait again.
struct Turn {
  const void* caller = nullptr;  // who submitted it; only compared
  Clock::time_point due;         // within a caller, the earliest is first
  std::uint64_t sequence = 0;    // breaks ties
  double left = 0;               // cost that has not been charged yet

 private:
  friend class Turns;
  struct IsBefore {
    bool operator()(const Turn* a, const Turn* b) const {
      return a->due != b->due ? a->due < b->due : a->sequence < b->sequence;
    }
  };
  using Set = std::set<Turn*, IsBefore>;
  struct Caller;
  Caller* of = nullptr;
  Set::node_type place;  // the set's node while the job does not wait, so that Wait allocates nothing
};

// Deficit round robin over callers (Shreedhar and Varghese, 1996); within a caller, earliest due first. A caller's turn
// lasts until `quantum` of cost has been charged to it. Not thread-safe. Each operation is O(log n) unless noted.
class Turns {
 public:
  explicit Turns(double quantum) : quantum_(quantum) {}
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // Call once, before anything else with `turn`. Sets private members only. May throw std::bad_alloc; then `turn` has
  // not joined.
  void Join(Turn* turn);
  // Call once, last, while `turn` does not wait.
  void Leave(Turn* turn);

  // Starts waiting. Do not change `due` and `left` while it waits. Allocates nothing.
  void Wait(Turn* turn);
  // Stops waiting.
  void Remove(Turn* turn);
  // Removes and returns the job whose turn it is; null if none waits.
  Turn* Take();

  // Charges cost to a job that does not wait. Returns false if its caller's turn is over.
  bool Charge(Turn* turn, double cost);

  bool empty() const { return waiting_ == 0; }
  std::size_t waiting() const { return waiting_; }
  double cost() const { return cost_; }  // of all waiting jobs

  // An upper bound of the cost that others get before a job with these values, if it waited, would get all of its own,
  // assuming that all of its caller's jobs that are due by `until` come before it. Stops counting beyond `enough`.
  // O(number of those jobs).
  double CostBefore(const Turn& turn, Clock::time_point until, double enough) const;

 private:
  void EnterRing(Turn::Caller* caller);
  void LeaveRing(Turn::Caller* caller);

  const double quantum_;
  std::map<const void*, Turn::Caller> callers_;  // that have joined jobs
  Turn::Caller* current_ = nullptr;              // whose turn it is, in the ring of callers with waiting jobs
  std::size_t ring_ = 0;                         // callers in the ring
  std::size_t waiting_ = 0;
  double cost_ = 0;
};

struct Turn::Caller {
  Set turns;           // waiting jobs
  double cost = 0;     // of the waiting jobs
  double deficit = 0;  // what is left of its turn; negative: it has had more
  std::size_t joined = 0;
  Caller* next = nullptr;  // in the ring; null: not in it
  Caller* previous = nullptr;
};

}  // namespace attnd::schedule
