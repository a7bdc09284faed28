// Linked into everything that is built with ThreadSanitizer. The system's Abseil is built without it, so
// ThreadSanitizer does not see that its locks order anything, and every guarded field would look like a race. The
// functions below replace Abseil's for the whole process, gRPC's libraries included (a program's symbols take
// precedence over its libraries'). They call Abseil's own and tell ThreadSanitizer what these order. tests/checks/tsan
// checks that they do, and that a race is still found.
#include <sanitizer/tsan_interface.h>

#include <cstdint>

#include "real.h"

namespace {

// What a mutex orders: a writer comes after all previous holders, a reader only after the writers. So readers have an
// address of their own, inside the mutex.
enum class Lock { kNone, kRead, kWrite };

void* ForReaders(void* mutex) { return static_cast<char*>(mutex) + 1; }

void Acquired(void* mutex, Lock lock) {
  if (lock == Lock::kNone) return;
  __tsan_acquire(mutex);
  if (lock == Lock::kWrite) __tsan_acquire(ForReaders(mutex));
}

void Release(void* mutex, Lock lock) {
  if (lock == Lock::kNone) return;
  __tsan_release(lock == Lock::kWrite ? mutex : ForReaders(mutex));
}

// The mutex of the wrapped call that this thread is in. A thread that unlocks a mutex evaluates the conditions of the
// waiting threads before others can lock it; a waiting thread evaluates its own condition whenever it wakes. Neither
// calls the functions here, so Condition::Eval (below) reports that its thread holds this mutex.
thread_local void* evaluating = nullptr;

// Wraps a call that holds the lock `before` when it begins and `after` when it ends.
template <typename Call>
auto Inside(void* mutex, Lock before, Lock after, Call call) {
  struct Scope {
    ~Scope() {
      evaluating = outer;
      Acquired(mutex, after);
    }
    void* mutex;
    Lock after;
    void* outer;
  };
  Release(mutex, before);
  const Scope scope{mutex, after, evaluating};
  evaluating = mutex;
  return call();
}

}  // namespace

// Mangled names in Abseil's lts_2022_06_23, as Debian bookworm spells them. A Condition is passed by address; an
// absl::Time or absl::Duration, a trivial class of 12 bytes, is passed in two registers.
#define ABSL(name) _ZN4absl7debian3##name
#define ABSL_CONST(name) _ZNK4absl7debian3##name

#define WRAP(symbol, before, after)                               \
  extern "C" void symbol(void* self) {                            \
    REAL(symbol);                                                 \
    Inside(self, Lock::before, Lock::after, [&] { real(self); }); \
  }
#define WRAP_CONDITION(symbol, before, after)                                \
  extern "C" void symbol(void* self, void* condition) {                      \
    REAL(symbol);                                                            \
    Inside(self, Lock::before, Lock::after, [&] { real(self, condition); }); \
  }
#define WRAP_TIMED_CONDITION(symbol, before, after)                                                   \
  extern "C" bool symbol(void* self, void* condition, std::uint64_t low, std::uint64_t high) {        \
    REAL(symbol);                                                                                     \
    return Inside(self, Lock::before, Lock::after, [&] { return real(self, condition, low, high); }); \
  }
#define WRAP_TRY(symbol, after)              \
  extern "C" bool symbol(void* self) {       \
    REAL(symbol);                            \
    const bool locked = real(self);          \
    if (locked) Acquired(self, Lock::after); \
    return locked;                           \
  }

WRAP(ABSL(5Mutex4LockEv), kNone, kWrite)
WRAP(ABSL(5Mutex6UnlockEv), kWrite, kNone)
WRAP(ABSL(5Mutex10ReaderLockEv), kNone, kRead)
WRAP(ABSL(5Mutex12ReaderUnlockEv), kRead, kNone)
WRAP_TRY(ABSL(5Mutex7TryLockEv), kWrite)
WRAP_TRY(ABSL(5Mutex13ReaderTryLockEv), kRead)
WRAP_CONDITION(ABSL(5Mutex8LockWhenERKNS0_9ConditionE), kNone, kWrite)
WRAP_CONDITION(ABSL(5Mutex14ReaderLockWhenERKNS0_9ConditionE), kNone, kRead)
WRAP_TIMED_CONDITION(ABSL(5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE), kNone, kWrite)
WRAP_TIMED_CONDITION(ABSL(5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE), kNone, kWrite)
WRAP_TIMED_CONDITION(ABSL(5Mutex25ReaderLockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE), kNone, kRead)
WRAP_TIMED_CONDITION(ABSL(5Mutex26ReaderLockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE), kNone, kRead)
// These also work for a reader. Treating it as a writer may hide a race of two readers, but never reports a false one.
WRAP_CONDITION(ABSL(5Mutex5AwaitERKNS0_9ConditionE), kWrite, kWrite)
WRAP_TIMED_CONDITION(ABSL(5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE), kWrite, kWrite)
WRAP_TIMED_CONDITION(ABSL(5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE), kWrite, kWrite)

extern "C" bool ABSL_CONST(9Condition4EvalEv)(void* self) {
  REAL(ABSL_CONST(9Condition4EvalEv));
  void* const mutex = evaluating;
  if (mutex == nullptr) return real(self);
  Acquired(mutex, Lock::kWrite);
  evaluating = nullptr;
  const bool result = real(self);
  evaluating = mutex;
  Release(mutex, Lock::kWrite);
  return result;
}

// The waits of a condition variable unlock the mutex, wait, and lock it again. The mutex always orders what is
// signalled.
extern "C" void ABSL(7CondVar4WaitEPNS0_5MutexE)(void* self, void* mutex) {
  REAL(ABSL(7CondVar4WaitEPNS0_5MutexE));
  Inside(mutex, Lock::kWrite, Lock::kWrite, [&] { real(self, mutex); });
}
#define WRAP_TIMED_WAIT(symbol)                                                                     \
  extern "C" bool symbol(void* self, void* mutex, std::uint64_t low, std::uint64_t high) {          \
    REAL(symbol);                                                                                   \
    return Inside(mutex, Lock::kWrite, Lock::kWrite, [&] { return real(self, mutex, low, high); }); \
  }
WRAP_TIMED_WAIT(ABSL(7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE))
WRAP_TIMED_WAIT(ABSL(7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE))

// Notification: a wait may return after reading the flag, without the mutex. HasBeenNotified reads the flag in code
// compiled here, so the flag's address is used for ordering.
static void* Flag(void* notification) { return static_cast<char*>(notification) + sizeof(void*); }

extern "C" void ABSL(12Notification6NotifyEv)(void* self) {
  REAL(ABSL(12Notification6NotifyEv));
  __tsan_release(Flag(self));
  real(self);
}
extern "C" void ABSL_CONST(12Notification19WaitForNotificationEv)(void* self) {
  REAL(ABSL_CONST(12Notification19WaitForNotificationEv));
  real(self);
  __tsan_acquire(Flag(self));
}
#define WRAP_NOTIFIED(symbol)                                                 \
  extern "C" bool symbol(void* self, std::uint64_t low, std::uint64_t high) { \
    REAL(symbol);                                                             \
    const bool notified = real(self, low, high);                              \
    if (notified) __tsan_acquire(Flag(self));                                 \
    return notified;                                                          \
  }
WRAP_NOTIFIED(ABSL_CONST(12Notification30WaitForNotificationWithTimeoutENS0_8DurationE))
WRAP_NOTIFIED(ABSL_CONST(12Notification31WaitForNotificationWithDeadlineENS0_4TimeE))

// BlockingCounter.
extern "C" bool ABSL(15BlockingCounter14DecrementCountEv)(void* self) {
  REAL(ABSL(15BlockingCounter14DecrementCountEv));
  __tsan_release(self);
  return real(self);
}
extern "C" void ABSL(15BlockingCounter4WaitEv)(void* self) {
  REAL(ABSL(15BlockingCounter4WaitEv));
  real(self);
  __tsan_acquire(self);
}
