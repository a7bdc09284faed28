// What the scheduler runs: one request's work, which hands out its items one by one. Knows nothing of attention.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"

namespace attnd::schedule {

// Warm scratch memory, one per worker thread, reused from item to item and never shared. Not thread-safe.
class Arena;

struct Item {
  double cost;  // any unit that is the same for all works: the scheduler compares them (multiply-adds here)

  // Which item it is, in the work's own terms; the scheduler only passes them on.
  std::int32_t kind;
  std::int32_t slot;
  std::int64_t first;
  std::int64_t last;
};

// A long item calls this about every kPauseCost; false: the work has been given up, return without finishing the item.
using Pause = absl::FunctionRef<bool()>;
inline constexpr double kPauseCost = 1 << 25;

// One request's work. Items are made when they are asked for, so that a work of a billion items holds none of them.
//
// Thread safety: Next, Finish and ready are called by one thread at a time (under the scheduler's lock, so they are
// short and never block); Run is called for different items from several threads at once, and beside the others. What
// an item's Run wrote is visible to the Run of an item that its Finish has unlocked.
class Work {
 public:
  virtual ~Work() = default;

  // About what all its items cost together. Before the first Next.
  virtual double cost() const = 0;

  // The item to run next of those that can run now, the most costly first, so that no long one is left at the end; of
  // equals the one whose neighbours in memory were before. nullopt if there is none: then some running item unlocks
  // others when it is finished, or, if none runs, the work is done.
  virtual std::optional<Item> Next() = 0;

  // How many items Next would hand out now. May be too low, but is 0 only if there are none.
  virtual std::int64_t ready() const = 0;

  // Runs an item that Next has handed out. Never blocks. `arena` is the running thread's.
  virtual void Run(const Item& item, Arena& arena, Pause pause) = 0;

  // Whether the time that its items take tells how fast a thread computes what they cost.
  virtual bool tells_speed() const { return true; }

  // Call once for each item that has run: unlocks those that waited for it.
  virtual void Finish(const Item& item) = 0;
};

}  // namespace attnd::schedule
