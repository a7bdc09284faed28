// The heap of attnd's processes: tcmalloc (gperftools) on huge pages, which keeps freed memory while calls need it.
//
// gRPC receives into slices of 64 KiB from malloc. If the allocator returns freed memory to the system, each message's
// pages are unmapped, faulted in and zeroed again; docs/decisions/0008 compares the allocators.
//
// For executables: linking this room makes tcmalloc the allocator of the process, shared libraries included. A build
// with ATTND_ALLOCATOR=libc (sanitizers) keeps libc's allocator; Configure and GiveBack then do nothing.
#pragma once

#include <cstddef>
#include <string>

namespace attnd::heap {

// Requests huge pages for all memory that the heap gets from now on, and keeps freed memory until GiveBack. Call it in
// main, before other threads exist.
void Configure();

// Returns the page heap's free memory beyond `keep` bytes to the system. Holds the heap's lock for up to a few
// milliseconds per GiB. Thread-safe.
void GiveBack(std::size_t keep);

struct Usage {
  std::size_t in_use = 0;         // bytes that are allocated
  std::size_t kept = 0;           // free bytes that the process holds
  std::size_t thread_caches = 0;  // the part of `kept` in thread caches, which GiveBack does not reach
};
// All zero with libc's allocator. Thread-safe; costs a few microseconds.
Usage GetUsage();

// Whether tcmalloc provides the malloc that shared libraries, gRPC among them, call. Asks malloc itself, so the answer
// is no if the build links another allocator or links tcmalloc without effect. Thread-safe.
bool IsInForce();

// "tcmalloc 2.10", or "libc".
std::string Name();

}  // namespace attnd::heap
