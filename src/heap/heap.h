// The heap of attnd's processes: tcmalloc (gperftools), on huge pages, which keeps freed memory while it is needed.
//
// gRPC receives into slices of 64 KiB from malloc. With an allocator that gives freed memory back to the system, each
// message's pages are unmapped, faulted in and zeroed again; docs/decisions/0008 compares the allocators.
//
// For executables: linking this room makes tcmalloc the allocator of the process, shared libraries included. A build
// with ATTND_ALLOCATOR=libc (sanitizers) keeps libc's, where Configure and GiveBack do nothing.
#pragma once

#include <cstddef>
#include <string>

namespace attnd::heap {

// Asks the system for huge pages for all memory that the heap gets from now on, and keeps freed memory until GiveBack.
// For main, before other threads exist.
void Configure();

// Gives free memory beyond `keep` bytes back to the system. Takes the heap's lock for up to some milliseconds a GiB.
// Thread-safe.
void GiveBack(std::size_t keep);

struct Usage {
  std::size_t in_use = 0;         // bytes that are allocated
  std::size_t kept = 0;           // free bytes that the process holds
  std::size_t thread_caches = 0;  // of `kept`, those in caches of threads, which GiveBack does not reach
};
// All zero with libc's allocator. Thread-safe; costs a few microseconds.
Usage GetUsage();

// Whether malloc's memory comes from tcmalloc: that of the malloc which shared libraries, gRPC among them, call. Asks
// malloc itself, so that a build that links another allocator, or this one without effect, says no. Thread-safe.
bool IsInForce();

// "tcmalloc 2.10", or "libc".
std::string Name();

}  // namespace attnd::heap
