// What waits, what is refused, and what expires (scheduler.h): with works of many items, which wait for a turn.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"

namespace attnd::schedule {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::Gt;

constexpr double kItemCost = 1 << 22;
constexpr auto kItemTime = milliseconds(2);
constexpr std::int64_t kLong = 50;  // items: more than a small work, and 100 ms

// Items that take their time; `run` sees each.
class TimedWork final : public Work {
 public:
  TimedWork(std::int64_t items, bool tells_speed, std::function<void()> run)
      : items_(items), tells_speed_(tells_speed), left_(items), run_(std::move(run)) {}
  double cost() const override { return kItemCost * static_cast<double>(items_); }
  std::optional<Item> Next() override {
    if (left_ == 0) return std::nullopt;
    return Item{kItemCost, 0, 0, --left_, 0};
  }
  std::int64_t ready() const override { return left_; }
  void Run(const Item&, Arena&, Pause) override {
    run_();
    absl::SleepFor(absl::FromChrono(kItemTime));
  }
  void Finish(const Item&) override {}
  bool tells_speed() const override { return tells_speed_; }

 private:
  const std::int64_t items_;
  const bool tells_speed_;
  std::int64_t left_;
  const std::function<void()> run_;
};

// Submits works and keeps what becomes of them, in order of their ends.
class QueueTest : public ::testing::Test {
 protected:
  struct Ended {
    int id;
    Outcome outcome;
  };

  void Submit(int id, std::int64_t items, SubmitOptions options = {}) {
    ++submitted_;
    scheduler_->Submit(std::make_unique<TimedWork>(items, tell_speed_, [this] { ++items_run_; }), std::move(options),
                       [this, id](const Outcome& outcome) {
                         absl::MutexLock lock(&mutex_);
                         ended_.push_back({id, outcome});
                       });
  }

  static SubmitOptions Within(milliseconds time, const void* caller = nullptr) {
    SubmitOptions options;
    options.deadline = Clock::now() + time;
    options.caller = caller;
    return options;
  }
  static SubmitOptions Of(const void* caller) {
    SubmitOptions options;
    options.caller = caller;
    return options;
  }

  // Lets the scheduler see how long items take.
  void Learn() {
    Submit(-1, kLong);
    ASSERT_EQ(Wait().size(), 1U);
    ended_.clear();
    submitted_ = 0;
    items_run_ = 0;
  }

  std::vector<Ended> Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](QueueTest* test) { return static_cast<int>(test->ended_.size()) == test->submitted_; }, this));
    return ended_;
  }

  static std::vector<int> Ids(const std::vector<Ended>& ended) {
    std::vector<int> ids;
    for (const Ended& e : ended) ids.push_back(e.id);
    return ids;
  }

  bool tell_speed_ = true;
  int submitted_ = 0;
  std::atomic<std::int64_t> items_run_ = 0;
  absl::Mutex mutex_;
  std::vector<Ended> ended_;
  std::unique_ptr<Scheduler> scheduler_ = std::make_unique<Scheduler>(1);
};

TEST_F(QueueTest, OneIsComputedAfterTheOther) {
  for (int id = 0; id < 4; ++id) Submit(id, kLong);
  const std::vector<Ended> ended = Wait();
  EXPECT_THAT(Ids(ended), ElementsAre(0, 1, 2, 3));
  // Not all of them for four times as long.
  for (const Ended& e : ended) EXPECT_LT(e.outcome.computed, absl::FromChrono(2 * kLong * kItemTime)) << e.id;
  EXPECT_GT(ended[3].outcome.queued, absl::FromChrono(2 * kLong * kItemTime));
}

TEST_F(QueueTest, TheEarliestDeadlineOfACallerGoesFirst) {
  Submit(0, kLong);
  Submit(1, kLong);
  Submit(2, kLong, Within(std::chrono::hours(2)));
  Submit(3, kLong, Within(std::chrono::hours(1)));
  EXPECT_THAT(Ids(Wait()), ElementsAre(0, 3, 2, 1));
}

TEST_F(QueueTest, CallersTakeTurns) {
  const int many = 0, few = 0;
  for (int id = 0; id < 6; ++id) Submit(id, kLong, Of(&many));
  Submit(100, kLong, Of(&few));
  const std::vector<int> ids = Ids(Wait());
  // A turn (2^30) has room for all of the first caller's works; the other waits for its end at most.
  EXPECT_THAT(ids.size(), 7U);
  EXPECT_EQ(ids[0], 0);
}

TEST_F(QueueTest, AWorkThatIsNotDoneInItsTurnWaitsForTheNext) {
  const int huge = 0, other = 0;
  // 600 items of 2^22: two and a half turns.
  Submit(0, 600, Of(&huge));
  while (items_run_ < 10) absl::SleepFor(absl::Milliseconds(1));
  Submit(1, kLong, Of(&other));
  Submit(2, kLong, Of(&huge));
  const std::vector<Ended> ended = Wait();
  EXPECT_EQ(ended[0].id, 1) << "it waits for the end of a turn, not of a work";
  EXPECT_EQ(items_run_, 700) << "what waits again goes on where it was";
  for (const Ended& e : ended) EXPECT_TRUE(e.outcome.status.ok());
}

TEST_F(QueueTest, SmallWorksWaitForNoTurn) {
  for (int id = 0; id < 4; ++id) Submit(id, kLong);
  Submit(100, 4);
  EXPECT_EQ(Wait()[0].id, 100);
}

TEST_F(QueueTest, WhatCannotBeDoneInTimeIsRefusedAtOnce) {
  Learn();
  for (int id = 0; id < 4; ++id) Submit(id, kLong, Within(milliseconds(1000 + id)));  // 400 ms
  const Clock::time_point before = Clock::now();
  Submit(100, kLong, Within(milliseconds(130)));  // before all but the one that is computed
  {
    absl::MutexLock lock(&mutex_);
    ASSERT_EQ(ended_.size(), 1U) << "before Submit returned";
    EXPECT_EQ(ended_[0].id, 100);
    const Outcome& outcome = ended_[0].outcome;
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(outcome.estimate, Gt(absl::Milliseconds(130)));
    EXPECT_THAT(outcome.come_back, Gt(absl::Milliseconds(25)));
  }
  EXPECT_LT(Clock::now() - before, milliseconds(100));
  EXPECT_EQ(scheduler_->GetQueueUse().refused, 1);
  Submit(101, kLong, Within(milliseconds(5000)));  // there is time enough
  for (const Ended& e : Wait()) EXPECT_EQ(e.outcome.status.ok(), e.id != 100) << e.id;
  EXPECT_EQ(items_run_, 5 * kLong);
}

// Without an estimate nothing is refused: what the test above sees is the estimate's doing.
TEST_F(QueueTest, WithoutAnEstimateItExpiresInTheQueue) {
  for (int id = 0; id < 4; ++id) Submit(id, kLong);
  Submit(100, kLong, Within(milliseconds(150)));
  Submit(101, kLong, Within(milliseconds(160)));
  const std::vector<Ended> ended = Wait();
  int expired = 0;
  for (const Ended& e : ended) {
    if (e.id < 100 || e.outcome.status.ok()) continue;
    ++expired;
    EXPECT_EQ(e.outcome.status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_GE(expired, 1);
  EXPECT_EQ(scheduler_->GetQueueUse().refused, 0);
  EXPECT_EQ(scheduler_->GetQueueUse().expired + items_run_ / kLong, 6) << "of what expires nothing is computed";
}

TEST_F(QueueTest, WorksThatDoNotTellTheSpeedMakeNoEstimate) {
  tell_speed_ = false;
  Learn();
  for (int id = 0; id < 4; ++id) Submit(id, kLong, Within(milliseconds(1000 + id)));
  Submit(100, kLong, Within(milliseconds(130)));
  EXPECT_EQ(scheduler_->GetQueueUse().refused, 0);
  Wait();
}

TEST_F(QueueTest, AWorkIsLetInWhereNothingStandsBeforeIt) {
  Learn();
  Submit(0, kLong, Within(milliseconds(1)));
  EXPECT_EQ(Wait()[0].outcome.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(scheduler_->GetQueueUse().refused, 0);
}

TEST_F(QueueTest, WithoutADeadlineAWorkWaitsForMaxWait) {
  scheduler_ = std::make_unique<Scheduler>(1, milliseconds(250));
  Learn();
  for (int id = 0; id < 6; ++id) Submit(id, kLong);
  int refused = 0;
  for (const Ended& e : Wait()) {
    if (e.outcome.status.ok()) continue;
    ++refused;
    EXPECT_EQ(e.outcome.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_GT(e.outcome.come_back, absl::ZeroDuration());
    EXPECT_GE(e.id, 2);
  }
  EXPECT_GE(refused, 2);
  EXPECT_LE(refused, 4);
}

TEST_F(QueueTest, AWaitingWorkIsCancelledAtOnce) {
  Submit(0, kLong);
  SubmitOptions options;
  Submit(1, kLong);
  Submit(2, kLong, options);
  EXPECT_GE(scheduler_->GetQueueUse().waiting, 1);
  options.cancel.Cancel();
  {
    absl::MutexLock lock(&mutex_);
    ASSERT_EQ(ended_.size(), 1U);
    EXPECT_EQ(ended_[0].outcome.status.code(), absl::StatusCode::kCancelled);
  }
  EXPECT_THAT(Ids(Wait()), ElementsAre(2, 0, 1));
  EXPECT_EQ(scheduler_->GetQueueUse().waiting, 0);
}

// Cancellations, ends and expiries at once; what is checked is that each is told once and that nothing stands still.
TEST_F(QueueTest, AllAreToldWhateverHappens) {
  scheduler_ = std::make_unique<Scheduler>(3, milliseconds(40));
  const int callers[5] = {};
  std::vector<SubmitOptions> options;
  for (int id = 0; id < 300; ++id) {
    options.push_back(id % 3 == 0 ? Within(milliseconds(id % 37), &callers[id % 5]) : Of(&callers[id % 5]));
    Submit(id, 9 + id % 11, options.back());
    if (id % 4 == 0) options[static_cast<std::size_t>(id) / 2].cancel.Cancel();
  }
  EXPECT_EQ(Wait().size(), 300U);
  EXPECT_EQ(scheduler_->GetQueueUse().waiting, 0);
  Submit(300, kLong);
  EXPECT_TRUE(Wait().back().outcome.status.ok()) << "and it goes on";
}

}  // namespace
}  // namespace attnd::schedule
