// An allocation that fails. For a program that links nth_allocation.cc, operator new is the one of that file.
#pragma once

#include <cstdint>

namespace attnd::test {

// From now on, allocation number `first` of this thread (from 1) throws std::bad_alloc; with `all`, also those after
// it.
void FailNthAllocation(std::int64_t first, bool all = false);
// Lets all succeed again. Returns whether one has failed.
bool StopFailingAllocations();

}  // namespace attnd::test
