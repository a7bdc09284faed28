// What the scheduler runs: all the work of one request (a job), which hands out its items one by one. Knows nothing of
// attention.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"

namespace attnd::schedule {

// Warm scratch memory, one per worker thread, reused from item to item and never shared. Not thread-safe.
class Arena;

struct Item {
  double cost;  // in any unit that all jobs share, because the scheduler compares costs (here: multiply-adds)

  // Identifies the item to its Work; the scheduler only passes these on.
  std::int32_t kind;
  std::int32_t slot;
  std::int64_t first;
  std::int64_t last;
};

// A long item calls this about every kPauseCost. If it returns false, the job was given up: return without finishing
// the item.
using Pause = absl::FunctionRef<bool()>;
inline constexpr double kPauseCost = 1 << 25;

// The work of one request. Items are created on demand, so that a job of a billion items holds none of them.
//
// Thread safety: Next, Finish and ready are called by one thread at a time (under the scheduler's lock, so they are
// short and never block). Run is called for different items from several threads at once, and concurrently with the
// others. What an item's Run wrote is visible to the Run of an item that its Finish has unlocked.
class Work {
 public:
  virtual ~Work() = default;

  // Approximate total cost of all items. Call before the first Next.
  virtual double cost() const = 0;

  // The next item of those that can run now, most costly first so that no long item is left at the end; among equals
  // the one whose neighbours in memory came before it. nullopt if there is none: either a running item unlocks others
  // when it finishes, or nothing runs and the job is done.
  virtual std::optional<Item> Next() = 0;

  // Number of items that Next would return now. May be too low, but is 0 only if there are none.
  virtual std::int64_t ready() const = 0;

  // Runs an item that Next has returned. Never blocks. `arena` belongs to the running thread.
  virtual void Run(const Item& item, Arena& arena, Pause pause) = 0;

  // Whether the items' run times show how fast a thread computes their cost.
  virtual bool tells_speed() const { return true; }

  // Call once for each item that has run: unlocks the items that waited for it.
  virtual void Finish(const Item& item) = 0;
};

}  // namespace attnd::schedule
