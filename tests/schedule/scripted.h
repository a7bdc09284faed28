// Works whose items a test describes, and a scheduler whose waits are bounded and whose clock stands still.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../support/wait.h"
#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {

inline constexpr absl::Duration kPatience = absl::Seconds(20);

// Ends the program with a message if it does not come about: what waits may use what a test would destroy.
inline void Await(const absl::Notification& notification, std::string_view what = "a notification") {
  if (!notification.WaitForNotificationWithTimeout(kPatience)) {
    GTEST_LOG_(FATAL) << what << " does not come about within " << absl::FormatDuration(kPatience);
  }
}

template <typename Condition>
void AwaitCondition(absl::Mutex& mutex, const Condition& condition, std::string_view what)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  if (!mutex.AwaitWithTimeout(absl::Condition(&condition), kPatience)) {
    GTEST_LOG_(FATAL) << what << " does not come about within " << absl::FormatDuration(kPatience);
  }
}

// Waits until a thread of this process has begun, and waits for something.
inline void AwaitSleep(const std::atomic<pid_t>& thread) {
  const auto sleeps = [&thread] {
    if (thread == 0) return false;
    std::ifstream file(absl::StrCat("/proc/self/task/", thread.load(), "/stat"));
    std::string line;
    std::getline(file, line);  // "ID (NAME) STATE ..."
    return line.find(") S ") != std::string::npos;
  };
  if (!test::Becomes(sleeps)) GTEST_LOG_(FATAL) << "the thread does not wait";
}

// The threads of this process.
inline std::set<pid_t> Threads() {
  std::set<pid_t> threads;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    threads.insert(static_cast<pid_t>(std::stol(entry.path().filename().string())));
  }
  return threads;
}

// A clock that moves only when a test moves it.
class FakeClock {
 public:
  static Clock::time_point Now() { return Clock::time_point(Clock::duration(Ticks().load())); }
  static void Advance(double seconds) { Ticks() += Of(seconds).count(); }
  static Clock::duration Of(double seconds) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

 private:
  static std::atomic<Clock::rep>& Ticks() {
    static std::atomic<Clock::rep> ticks = Clock::duration(std::chrono::hours(1000)).count();
    return ticks;
  }
};

// A scheduler that must end in time: its destructor waits for its jobs.
class BoundedScheduler {
 public:
  explicit BoundedScheduler(int threads, Clock::duration max_wait = Clock::duration::max(),
                            NowFunction now = &Clock::now)
      : scheduler_(std::make_unique<Scheduler>(threads, max_wait, now)) {}
  ~BoundedScheduler() {
    absl::Notification ended;
    std::thread end([&] {
      scheduler_.reset();
      ended.Notify();
    });
    Await(ended, "the scheduler's end");
    end.join();
  }
  // Calls `act` when the destructor waits, then returns when it has ended.
  void EndAfter(const std::function<void()>& act) {
    std::atomic<pid_t> thread = 0;
    absl::Notification ended;
    std::thread end([&] {
      thread = gettid();
      scheduler_.reset();
      ended.Notify();
    });
    AwaitSleep(thread);
    act();
    Await(ended, "the scheduler's end");
    end.join();
  }
  BoundedScheduler(const BoundedScheduler&) = delete;
  BoundedScheduler& operator=(const BoundedScheduler&) = delete;

  int threads() const { return scheduler_->threads(); }
  QueueUse GetQueueUse() const { return scheduler_->GetQueueUse(); }
  void Submit(std::unique_ptr<Work> work, SubmitOptions options, std::function<void(const Outcome&)> done) {
    scheduler_->Submit(std::move(work), std::move(options), std::move(done));
  }

 private:
  std::unique_ptr<Scheduler> scheduler_;
};

struct Script {
  std::vector<double> costs;  // of its items, which are handed out in this order
  // Most items that are ready or run at a time, so that an end unlocks the next.
  std::int64_t width = std::numeric_limits<std::int64_t>::max();
  const void* caller = nullptr;
  double time = -1;       // seconds until the deadline; none if negative
  double per_second = 0;  // the clock advances by an item's cost at this speed; 0: it stands still
  bool tells_speed = true;
  bool shy = false;          // says that one item is ready where there are more
  bool first_alone = false;  // the first item's end unlocks all others
  std::function<void(int item, Arena& arena, Pause pause)> run = [](int, Arena&, Pause) {};
  std::function<void(const Outcome& outcome)> done = [](const Outcome&) {};
};

// `count` items of `cost` each.
inline std::vector<double> Times(int count, double cost) {
  return std::vector<double>(static_cast<std::size_t>(count), cost);
}

class ScriptedWork final : public Work {
 public:
  ScriptedWork(Script script, std::function<void(int)> begun) : script_(std::move(script)), begun_(std::move(begun)) {}

  double cost() const override {
    double sum = 0;
    for (const double cost : script_.costs) sum += cost;
    return sum;
  }
  std::optional<Item> Next() override {
    if (Ready() == 0) return std::nullopt;
    const auto index = static_cast<std::size_t>(taken_++);
    return Item{script_.costs[index], 0, 0, static_cast<std::int64_t>(index), 0};
  }
  std::int64_t ready() const override { return script_.shy ? std::min<std::int64_t>(1, Ready()) : Ready(); }
  void Run(const Item& item, Arena& arena, Pause pause) override {
    begun_(static_cast<int>(item.first));
    if (script_.per_second > 0) FakeClock::Advance(item.cost / script_.per_second);
    script_.run(static_cast<int>(item.first), arena, pause);
  }
  void Finish(const Item&) override { ++finished_; }
  bool tells_speed() const override { return script_.tells_speed; }

 private:
  std::int64_t Ready() const {
    if (script_.first_alone && finished_ == 0) return 1 - taken_;
    return std::min(static_cast<std::int64_t>(script_.costs.size()) - taken_, script_.width - (taken_ - finished_));
  }

  const Script script_;
  const std::function<void(int)> begun_;
  std::int64_t taken_ = 0;
  std::int64_t finished_ = 0;
};

// Submits scripts to a scheduler and keeps what becomes of them. Jobs are named by letters.
class ScriptedScheduler {
 public:
  explicit ScriptedScheduler(int threads, Clock::duration max_wait = Clock::duration::max())
      : scheduler_(std::make_unique<BoundedScheduler>(threads, max_wait, &FakeClock::Now)) {}
  ~ScriptedScheduler() {
    Release();
    scheduler_.reset();
  }

  void Submit(char name, Script script) {
    SubmitOptions options;
    options.caller = script.caller;
    if (script.time >= 0) options.deadline = FakeClock::Now() + FakeClock::Of(script.time);
    {
      absl::MutexLock lock(&mutex_);
      tokens_[name] = options.cancel;
    }
    auto held = std::make_shared<int>();
    const std::weak_ptr<int> watched = held;
    auto done = std::move(script.done);
    auto work = std::make_unique<ScriptedWork>(std::move(script), [this, name, copy = std::move(held)](int) {
      absl::MutexLock lock(&mutex_);
      order_ += name;
    });
    scheduler_->Submit(std::move(work), options, [this, name, watched, done](const Outcome& outcome) {
      EXPECT_TRUE(watched.expired()) << name << ": its end is told while its work exists";
      done(outcome);
      absl::MutexLock lock(&mutex_);
      EXPECT_TRUE(outcomes_.emplace(name, outcome).second) << name << ": its end is told twice";
      ended_ += name;
    });
  }
  void Cancel(char name) {
    CancelToken token;
    {
      absl::MutexLock lock(&mutex_);
      token = tokens_.at(name);
    }
    token.Cancel();
  }

  // Keeps one thread busy, which then runs nothing else, until Release.
  void Hold() {
    begun_ = std::make_shared<absl::Notification>();
    release_ = std::make_shared<absl::Notification>();
    Submit('!', {.costs = {kInlineCost + 1},
                 .tells_speed = false,
                 .run = [begun = begun_, release = release_](int, Arena&, Pause) {
                   begun->Notify();
                   Await(*release, "the release of the thread");
                 }});
    Await(*begun_, "the begin of an item");
  }
  void Release() {
    if (release_ == nullptr) return;
    release_->Notify();
    release_.reset();
    Wait("!");
    Forget('!');
  }

  // Makes the name free for another job.
  void Forget(char name) {
    absl::MutexLock lock(&mutex_);
    outcomes_.erase(name);
    std::erase(order_, name);
    std::erase(ended_, name);
  }

  // Waits for the ends of these jobs.
  void Wait(const std::string& names) {
    absl::MutexLock lock(&mutex_);
    for (const char name : names) {
      const auto ended = [this, name]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return outcomes_.contains(name); };
      AwaitCondition(mutex_, ended, std::string("the end of job ") + name);
    }
  }
  // Waits until this many items have begun.
  void WaitForItems(std::size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto begun = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return order_.size() >= count; };
    AwaitCondition(mutex_, begun, "the begin of an item");
  }

  bool Ended(char name) {
    absl::MutexLock lock(&mutex_);
    return outcomes_.contains(name);
  }
  Outcome Of(char name) {
    absl::MutexLock lock(&mutex_);
    const auto found = outcomes_.find(name);
    return found == outcomes_.end() ? Outcome{absl::UnknownError("has not ended"), {}, {}} : found->second;
  }
  absl::StatusCode CodeOf(char name) { return Of(name).status.code(); }
  // A letter for each item, in the order in which they begin.
  std::string Order() {
    absl::MutexLock lock(&mutex_);
    std::string order = order_;
    std::erase(order, '!');
    return order;
  }
  // A letter for each job, in the order in which they end.
  std::string Ends() {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }
  QueueUse Use() const { return scheduler_->GetQueueUse(); }

  // Tells the scheduler the speed, by one job on an idle scheduler.
  void Learn(double per_second) {
    Submit('?', {.costs = {per_second}, .per_second = per_second});
    Wait("?");
    Forget('?');
  }

 private:
  absl::Mutex mutex_;
  std::map<char, CancelToken> tokens_ ABSL_GUARDED_BY(mutex_);
  std::map<char, Outcome> outcomes_ ABSL_GUARDED_BY(mutex_);
  std::string order_ ABSL_GUARDED_BY(mutex_);
  std::string ended_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<absl::Notification> begun_, release_;
  std::unique_ptr<BoundedScheduler> scheduler_;
};

}  // namespace attnd::schedule
