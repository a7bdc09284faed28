// Linked into everything that is built with ThreadSanitizer. The system's Abseil is built without it, so its locks
// order nothing in ThreadSanitizer's eyes and every guarded field would look like a race. The functions below stand in
// front of Abseil's own for the whole process, gRPC's libraries too (a program's symbols come before its libraries'),
// and tell ThreadSanitizer what they do.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdint>

// Mangled names of Abseil's lts_2022_06_23 as Debian bookworm names it.
#define ABSL_MUTEX(name) _ZN4absl7debian35Mutex##name

// Abseil's own function behind the one of the same name and type here.
template <typename Function>
Function* Real(const char* name, Function*) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define NAME_(symbol) #symbol
#define NAME(symbol) NAME_(symbol)
#define REAL(symbol) static const auto real = Real(NAME(symbol), &symbol)

#define WRAP_ACQUIRE(symbol)           \
  extern "C" void symbol(void* self) { \
    REAL(symbol);                      \
    real(self);                        \
    __tsan_acquire(self);              \
  }
#define WRAP_RELEASE(symbol)           \
  extern "C" void symbol(void* self) { \
    REAL(symbol);                      \
    __tsan_release(self);              \
    real(self);                        \
  }
#define WRAP_TRY(symbol)               \
  extern "C" bool symbol(void* self) { \
    REAL(symbol);                      \
    const bool locked = real(self);    \
    if (locked) __tsan_acquire(self);  \
    return locked;                     \
  }
// Releases, waits and locks again.
#define WRAP_WAIT(symbol)                           \
  extern "C" void symbol(void* self, void* other) { \
    REAL(symbol);                                   \
    __tsan_release(self);                           \
    __tsan_release(other);                          \
    real(self, other);                              \
    __tsan_acquire(self);                           \
    __tsan_acquire(other);                          \
  }
// Waits until a time, given in two registers (absl::Time and absl::Duration are 12-byte trivial classes).
#define WRAP_TIMED(symbol)                                                                           \
  extern "C" bool symbol(void* self, void* other, std::uint64_t time_low, std::uint64_t time_high) { \
    REAL(symbol);                                                                                    \
    __tsan_release(self);                                                                            \
    __tsan_release(other);                                                                           \
    const bool result = real(self, other, time_low, time_high);                                      \
    __tsan_acquire(self);                                                                            \
    __tsan_acquire(other);                                                                           \
    return result;                                                                                   \
  }

WRAP_ACQUIRE(ABSL_MUTEX(4LockEv))
WRAP_ACQUIRE(ABSL_MUTEX(10ReaderLockEv))
WRAP_RELEASE(ABSL_MUTEX(6UnlockEv))
WRAP_RELEASE(ABSL_MUTEX(12ReaderUnlockEv))
WRAP_TRY(ABSL_MUTEX(7TryLockEv))
WRAP_TRY(ABSL_MUTEX(13ReaderTryLockEv))
WRAP_WAIT(_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE)
WRAP_TIMED(_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE)
WRAP_TIMED(_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE)
WRAP_RELEASE(_ZN4absl7debian312Notification6NotifyEv)
WRAP_ACQUIRE(_ZNK4absl7debian312Notification19WaitForNotificationEv)

// Notification's timed waits: no mutex among the arguments.
#define WRAP_NOTIFIED(symbol)                                                           \
  extern "C" bool symbol(void* self, std::uint64_t time_low, std::uint64_t time_high) { \
    REAL(symbol);                                                                       \
    const bool notified = real(self, time_low, time_high);                              \
    if (notified) __tsan_acquire(self);                                                 \
    return notified;                                                                    \
  }
WRAP_NOTIFIED(_ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE)
WRAP_NOTIFIED(_ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE)

// BlockingCounter.
extern "C" bool _ZN4absl7debian315BlockingCounter14DecrementCountEv(void* self) {
  REAL(_ZN4absl7debian315BlockingCounter14DecrementCountEv);
  __tsan_release(self);
  return real(self);
}
WRAP_ACQUIRE(_ZN4absl7debian315BlockingCounter4WaitEv)
