// Order between threads that a library keeps by means which ThreadSanitizer cannot see, since the library was built
// without it: said to ThreadSanitizer, and nothing at all in other builds. For order that the library promises; it
// makes none. (Abseil's locks are told to it by cmake/tsan.)
#pragma once

#include "platform/platform.h"

#if ATTND_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace attnd::platform {

// What this thread has done until now happens before what any thread does after HappensAfter(object). `object` is any
// address that both name.
inline void HappensBefore([[maybe_unused]] const void* object) {
#if ATTND_THREAD_SANITIZER
  __tsan_release(const_cast<void*>(object));
#endif
}

inline void HappensAfter([[maybe_unused]] const void* object) {
#if ATTND_THREAD_SANITIZER
  __tsan_acquire(const_cast<void*>(object));
#endif
}

}  // namespace attnd::platform
