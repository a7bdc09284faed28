// Whose turn it is among works that wait.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

namespace attnd::schedule {

// What deadlines and durations go by: never set, unlike the time of day.
using Clock = std::chrono::steady_clock;

class Turns;

// One that waits, or has waited and may wait again.
struct Turn {
  const void* caller = nullptr;  // whose it is; only compared
  Clock::time_point due;         // of one caller's, the earliest goes first
  std::uint64_t sequence = 0;    // breaks ties
  double left = 0;               // cost that has not been given to it

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
  Set::node_type place;  // while it does not wait: to wait again takes no memory
};

// Deficit round robin over callers (Shreedhar and Varghese, 1996), earliest due first within a caller. A caller's turn
// lasts until `quantum` of cost has been charged to it. Not thread-safe. O(log n) each, unless said otherwise.
class Turns {
 public:
  explicit Turns(double quantum) : quantum_(quantum) {}
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // Before anything else with it, and once; sets nothing but what is private. May throw std::bad_alloc, and then it has
  // not joined.
  void Join(Turn* turn);
  // Once, and last; it does not wait.
  void Leave(Turn* turn);

  // Waits from now on. Do not change `due` and `left` while it does. Takes no memory.
  void Wait(Turn* turn);
  // Waits no longer.
  void Remove(Turn* turn);
  // The one whose turn it is, which waits no longer; null if none waits.
  Turn* Take();

  // Counts what is given to one that does not wait. False: its caller's turn is over.
  bool Charge(Turn* turn, double cost);

  bool empty() const { return waiting_ == 0; }
  std::size_t waiting() const { return waiting_; }
  double cost() const { return cost_; }  // of all that wait

  // An upper bound of the cost that is given to others before one that would wait with these values has had its own, if
  // all of its caller's that are due until `until` go before it. Stops counting beyond `enough`. O(those).
  double CostBefore(const Turn& turn, Clock::time_point until, double enough) const;

 private:
  void EnterRing(Turn::Caller* caller);
  void LeaveRing(Turn::Caller* caller);

  const double quantum_;
  std::map<const void*, Turn::Caller> callers_;  // that have joined
  Turn::Caller* current_ = nullptr;              // of the ring of those that wait: whose turn it is
  std::size_t ring_ = 0;                         // callers in it
  std::size_t waiting_ = 0;
  double cost_ = 0;
};

struct Turn::Caller {
  Set turns;           // that wait
  double cost = 0;     // of those
  double deficit = 0;  // what is left of its turn; negative: it has had more
  std::size_t joined = 0;
  Caller* next = nullptr;  // in the ring; null: it is not there
  Caller* previous = nullptr;
};

}  // namespace attnd::schedule
