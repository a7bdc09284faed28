// Aligned arrays, as works and arenas allocate them, in a program with guarded_memory.cc: filled with NaN, with bytes
// before and after them that nothing may write.
#pragma once

namespace attnd::test {

// Number of arrays whose guards were found changed, when they were freed, since the last call.
int GuardsBroken();

}  // namespace attnd::test
