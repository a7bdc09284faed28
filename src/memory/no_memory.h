// Turns a failed allocation into an ordinary error.
//
// This project throws no exceptions of its own. The standard library, Abseil and protobuf throw when there is no memory
// (std::bad_alloc) or when a container would exceed its maximum size (std::length_error). Such an exception must not
// leave our code: gRPC would treat it as a method that does not exist and never end the call, and from a thread's
// function or a stop callback it ends the process. So CatchNoMemory, and nothing else, catches it where a library or a
// thread enters our code. The code in between relies on destructors alone.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace attnd::memory {

// RESOURCE_EXHAUSTED, "the server has no memory for this call". Created before main; copying it allocates nothing.
// Thread-safe.
const absl::Status& NoMemoryError();

// Returns what `run` returns, or NoMemoryError() if an allocation in it fails. Returns RESOURCE_EXHAUSTED too if the
// system cannot start a thread (std::system_error). Costs nothing if nothing fails. The text of an error needs memory
// as well: CatchNoMemory([] { return absl::CancelledError("..."); }) returns an error in any case. Thread-safe.
absl::Status CatchNoMemory(absl::FunctionRef<absl::Status()> run);

// The same for code that returns no status.
absl::Status CatchNoMemoryIn(absl::FunctionRef<void()> run);

// Lets the exceptions pass, so that a test can see what happens without the protection. For tests only; not while other
// threads run.
void LetNoMemoryThroughForTest(bool through);

}  // namespace attnd::memory
