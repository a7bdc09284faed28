// What ThreadSanitizer sees of Abseil's locks in this build (cmake/tsan): runs one named case, or all that have no
// race.
//   locks NAME | locks without-race
// A case with a race ends with ThreadSanitizer's report and its exit status, 66.
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace {

constexpr int kRounds = 500;

void InThreads(const std::vector<std::function<void()>>& bodies) {
  std::vector<std::thread> threads;
  threads.reserve(bodies.size());
  for (const auto& body : bodies) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

void Rounds(const std::function<void()>& body) {
  for (int i = 0; i < kRounds; ++i) body();
}

// One thread takes a number from a slot when it is full, one waits for an empty slot in another way, and one only
// locks: each evaluates the others' conditions when it unlocks.
struct Slot {
  absl::Mutex mutex;
  absl::CondVar changed;
  int number = 0;

  static bool Full(Slot* slot) { return slot->number != 0; }
  static bool Empty(Slot* slot) { return slot->number == 0; }
  absl::Condition full{&Full, this};
  absl::Condition empty{&Empty, this};

  void Put() {
    number = 1;
    changed.SignalAll();
  }
  void Take() {
    number = 0;
    changed.SignalAll();
  }
};

using Step = std::function<void(Slot&)>;

void ThroughASlot(const Step& put, const Step& take) {
  Slot slot;
  const auto touch = [&] {
    absl::MutexLock lock(&slot.mutex);
    slot.number = slot.number == 0 ? 0 : slot.number + 1;
  };
  InThreads({[&] { Rounds([&] { put(slot); }); }, [&] { Rounds([&] { take(slot); }); }, [&] { Rounds(touch); }});
}

void ThroughASlot(void (*wait)(Slot&, const absl::Condition&)) {
  ThroughASlot(
      [&](Slot& slot) {
        absl::MutexLock lock(&slot.mutex);
        wait(slot, slot.empty);
        slot.Put();
      },
      [&](Slot& slot) {
        absl::MutexLock lock(&slot.mutex);
        wait(slot, slot.full);
        slot.Take();
      });
}

void ThroughASlotLocking(void (*lock)(Slot&, const absl::Condition&)) {
  ThroughASlot(
      [&](Slot& slot) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        lock(slot, slot.empty);
        slot.Put();
        slot.mutex.Unlock();
      },
      [&](Slot& slot) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        lock(slot, slot.full);
        slot.Take();
        slot.mutex.Unlock();
      });
}

constexpr absl::Duration kSoon = absl::Microseconds(50);

const std::map<std::string, std::function<void()>> kWithoutRace = {
    {"lock",
     [] {
       absl::Mutex mutex;
       int number = 0;
       const auto add = [&] {
         absl::MutexLock lock(&mutex);
         ++number;
       };
       InThreads({[&] { Rounds(add); }, [&] { Rounds(add); }});
     }},
    {"try-lock",
     [] {
       absl::Mutex mutex;
       int number = 0;
       const auto add = [&] {
         while (!mutex.TryLock()) std::this_thread::yield();
         ++number;
         mutex.Unlock();
       };
       InThreads({[&] { Rounds(add); }, [&] { Rounds(add); }});
     }},
    {"reader-lock",
     [] {
       absl::Mutex mutex;
       int number = 0;
       const auto add = [&] {
         absl::MutexLock lock(&mutex);
         ++number;
       };
       const auto read = [&] {
         absl::ReaderMutexLock lock(&mutex);
         if (number < 0) std::abort();
       };
       const auto try_read = [&] {
         while (!mutex.ReaderTryLock()) std::this_thread::yield();
         if (number < 0) std::abort();
         mutex.ReaderUnlock();
       };
       InThreads({[&] { Rounds(add); }, [&] { Rounds(read); }, [&] { Rounds(try_read); }});
     }},
    {"wait",
     [] {
       ThroughASlot([](Slot& slot, const absl::Condition& condition) {
         while (!condition.Eval()) slot.changed.Wait(&slot.mutex);
       });
     }},
    {"wait-with-timeout",
     [] {
       ThroughASlot([](Slot& slot, const absl::Condition& condition) {
         while (!condition.Eval()) slot.changed.WaitWithTimeout(&slot.mutex, kSoon);
       });
     }},
    {"wait-with-deadline",
     [] {
       ThroughASlot([](Slot& slot, const absl::Condition& condition) {
         while (!condition.Eval()) slot.changed.WaitWithDeadline(&slot.mutex, absl::InfiniteFuture());
       });
     }},
    {"await", [] { ThroughASlot([](Slot& slot, const absl::Condition& condition) { slot.mutex.Await(condition); }); }},
    {"await-with-timeout",
     [] {
       ThroughASlot([](Slot& slot, const absl::Condition& condition) {
         while (!slot.mutex.AwaitWithTimeout(condition, kSoon)) continue;
       });
     }},
    {"await-with-deadline",
     [] {
       ThroughASlot([](Slot& slot, const absl::Condition& condition) {
         slot.mutex.AwaitWithDeadline(condition, absl::InfiniteFuture());
       });
     }},
    {"lock-when",
     [] {
       ThroughASlotLocking([](Slot& slot, const absl::Condition& condition)
                               ABSL_NO_THREAD_SAFETY_ANALYSIS { slot.mutex.LockWhen(condition); });
     }},
    {"lock-when-with-timeout",
     [] {
       ThroughASlotLocking([](Slot& slot, const absl::Condition& condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
         while (!slot.mutex.LockWhenWithTimeout(condition, kSoon)) slot.mutex.Unlock();
       });
     }},
    {"reader-lock-when",
     [] {
       ThroughASlotLocking([](Slot& slot, const absl::Condition& condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
         slot.mutex.ReaderLockWhen(condition);
         slot.mutex.ReaderUnlock();
         slot.mutex.LockWhen(condition);
       });
     }},
    {"notification",
     [] {
       for (int i = 0; i < 50; ++i) {
         int number = 0;
         absl::Notification there;
         const auto write = [&] {
           number = 1;
           there.Notify();
         };
         const auto wait = [&] {
           there.WaitForNotification();
           if (number != 1) std::abort();
         };
         const auto wait_with_timeout = [&] {
           while (!there.WaitForNotificationWithTimeout(kSoon)) continue;
           if (number != 1) std::abort();
         };
         const auto poll = [&] {
           while (!there.HasBeenNotified()) std::this_thread::yield();
           if (number != 1) std::abort();
         };
         InThreads({write, wait, wait_with_timeout, poll});
       }
     }},
    {"blocking-counter",
     [] {
       for (int i = 0; i < 50; ++i) {
         int numbers[2] = {};
         absl::BlockingCounter counter(2);
         const auto write = [&](int at) {
           numbers[at] = 1;
           counter.DecrementCount();
         };
         const auto wait = [&] {
           counter.Wait();
           if (numbers[0] + numbers[1] != 2) std::abort();
         };
         InThreads({[&] { write(0); }, [&] { write(1); }, wait});
       }
     }},
};

const std::map<std::string, std::function<void()>> kWithRace = {
    {"race-without-lock",
     [] {
       int number = 0;
       const auto add = [&] { ++number; };
       InThreads({[&] { Rounds(add); }, [&] { Rounds(add); }});
     }},
    {"race-after-unlock",
     [] {
       absl::Mutex mutex;
       int number = 0;
       const auto add = [&] {
         mutex.Lock();
         mutex.Unlock();
         ++number;
       };
       InThreads({[&] { Rounds(add); }, [&] { Rounds(add); }});
     }},
    {"race-of-two-locks",
     [] {
       absl::Mutex one, other;
       int number = 0;
       const auto add = [&](absl::Mutex& mutex) {
         absl::MutexLock lock(&mutex);
         ++number;
       };
       InThreads({[&] { Rounds([&] { add(one); }); }, [&] { Rounds([&] { add(other); }); }});
     }},
    {"race-of-readers",
     [] {
       absl::Mutex mutex;
       int number = 0;
       const auto add = [&] {
         absl::ReaderMutexLock lock(&mutex);
         ++number;
       };
       InThreads({[&] { Rounds(add); }, [&] { Rounds(add); }});
     }},
    {"race-after-notification",
     [] {
       int number = 0;
       absl::Notification there;
       const auto write = [&] {
         there.Notify();
         ++number;
       };
       const auto wait = [&] {
         there.WaitForNotification();
         ++number;
       };
       InThreads({write, wait});
     }},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc == 2 ? argv[1] : "";
  if (name == "without-race") {
    for (const auto& [each, run] : kWithoutRace) {
      std::printf("%s\n", each.c_str());
      std::fflush(stdout);
      run();
    }
    return 0;
  }
  for (const auto* cases : {&kWithoutRace, &kWithRace}) {
    if (const auto found = cases->find(name); found != cases->end()) {
      found->second();
      return 0;
    }
  }
  std::fprintf(stderr, "no case %s\n", name.c_str());
  return 2;
}
