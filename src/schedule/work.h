// What the scheduler runs: one request's work, cut into items that unlock each other. Knows nothing of attention.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

namespace attnd::schedule {

// Warm scratch memory, one per worker thread, reused from item to item and never shared. Not thread-safe.
class Arena;

struct Item {
  std::int64_t id;
  double cost;  // any unit that is the same for all works: the scheduler compares them (multiply-adds here)
};

// Whether `a` is run after `b` where both are ready: the most costly come first, so that no long one is left at the
// end; of equals the first, whose neighbours in memory are next.
inline bool RunsLater(const Item& a, const Item& b) { return a.cost != b.cost ? a.cost < b.cost : a.id > b.id; }

// One request's work. Run may be called for different items from several threads at once.
class Work {
 public:
  virtual ~Work() = default;

  // Items in all, those unlocked later included. The work is done when so many have run.
  virtual std::int64_t item_count() const = 0;

  // The items that can run at once.
  virtual absl::Span<const Item> initial_items() const = 0;

  // Runs an item and hands `ready` each item that this has unlocked; each item is handed out exactly once.
  // Never blocks. `arena` is the running thread's.
  virtual void Run(std::int64_t id, Arena& arena, absl::FunctionRef<void(Item)> ready) = 0;
};

}  // namespace attnd::schedule
