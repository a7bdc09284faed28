// Allocations of the server's code that fail when a test wants it. For an executable that links this, operator new and
// aligned_alloc are the ones of failing_allocator.cc.
//
// Which allocations may fail. Server, client and test run in one process, and gRPC's own allocator ends the process
// when it has no memory, which is its design and nothing that the server could mend. So the call stack decides, frame
// by frame from the allocation outward:
//
//   1. Frames of the standard library, Abseil, protobuf (generated messages among them, and gRPC's templates that parse
//      and serialise them) and spdlog decide nothing: they work for whoever called them, and throw std::bad_alloc
//      through.
//   2. The first other frame owns the allocation. It must be one of ours (namespace attnd). One of gRPC, as in the
//   strings
//      that its Finish copies, or where it parses a message before it calls us, makes the allocation gRPC's.
//   3. From there outward to the first frame of gRPC or the beginning of the thread, no frame may be of a test
//   (namespace
//      no_memory_test, or GoogleTest): what a test calls directly is the client's part.
//
// This is sound since an exception that is thrown at (1) passes frames that are built to let it pass, and then frames
// of ours: whether one of them catches it before it leaves our code is what a test sees. It is complete but for gRPC's
// headers where the compiler inlines them into a function of ours: such allocations count as ours, and they are, since
// the exception would start there.
#pragma once

#include <cstdint>
#include <string>

namespace attnd::test {

// From now on, counts those allocations, of all threads, and lets number `first` (from 1) fail; with `all`, also those
// that come after it. Not thread-safe against itself; one at a time.
void FailAllocation(std::int64_t first, bool all = false);

// Lets all succeed again. Where the first that failed was, a line for each frame; empty if none failed.
std::string StopFailing();

}  // namespace attnd::test
