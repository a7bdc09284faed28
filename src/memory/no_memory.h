// Where an allocation that fails becomes an ordinary error.
//
// Nothing in this project throws, but the standard library, Abseil and protobuf do where there is no memory
// (std::bad_alloc) or where a container would grow beyond what it can count (std::length_error). Such an exception must
// not leave our code: gRPC would take it for a method that does not exist, and never end the call; out of a thread's
// function, or of a stop callback, it ends the process. So it is caught where control enters our code from a library or
// a thread, by CatchNoMemory and nowhere else, and what happens between the two relies on destructors alone.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace attnd::memory {

// RESOURCE_EXHAUSTED, "the server has no memory for this call". Made before main; a copy allocates nothing.
// Thread-safe.
const absl::Status& NoMemoryError();

// What `run` returns, or NoMemoryError() where an allocation in it failed; RESOURCE_EXHAUSTED too where the system has
// no room for a thread (std::system_error). Costs nothing where none fails. An error's text is memory too:
// CatchNoMemory([] { return absl::CancelledError("..."); }) is an error in any case. Thread-safe.
absl::Status CatchNoMemory(absl::FunctionRef<absl::Status()> run);

// The same for what has no status of its own.
absl::Status CatchNoMemoryIn(absl::FunctionRef<void()> run);

// Lets the exceptions through, so that a test sees what happens then. For tests; not while anything else runs.
void LetNoMemoryThroughForTest(bool through);

}  // namespace attnd::memory
