#include "schedule/scheduler.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include <unsupported/Eigen/CXX11/ThreadPool>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "memory/no_memory.h"
#include "schedule/arena.h"
#include "schedule/work_rate.h"

namespace attnd::schedule {
namespace {

// While a long item pauses, items of other jobs that each cost at most this run, until together they cost this.
constexpr double kGuestCost = kPauseCost;

// Cost of a caller's turn per thread: some 15 milliseconds.
constexpr double kTurnCost = 1 << 30;

// Share of the time left at submission within which a job must be done by the estimate: its answer takes time too.
constexpr double kUsableTime = 0.8;

struct Job;

// Jobs that have ready items, least served first.
struct LeastServed {
  bool operator()(const Job* a, const Job* b) const;
};
using JobQueue = std::set<Job*, LeastServed>;

enum class Place : std::uint8_t {
  kNone,      // not yet with the scheduler, or given up
  kWaiting,   // for its turn
  kComputed,  // its items are being computed
};

// One submitted job. The members after `on_cancel`, and those of Turn, are guarded by the scheduler's lock.
struct Job : Turn {
  std::unique_ptr<Work> work;
  SubmitOptions options;
  std::function<void(const Outcome&)> done;
  Clock::time_point submitted;
  // Its destructor waits for the callback if another thread runs it.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel;

  bool queued = false;  // owned by the scheduler, until the thread that sees it finished takes it
  Place place = Place::kNone;
  bool small = false;        // does not wait for a turn
  JobQueue::node_type node;  // the queue's node while the job is not in it, so that Queue allocates nothing
  std::int64_t counted = 0;  // ready items, as included in the scheduler's sums
  std::optional<Item> next;  // taken from the work, but not begun
  int running = 0;
  double served = 0;  // virtual time: cost received so far, plus the clock's value when the job came
  std::optional<Clock::time_point> started;
  absl::Status status;
  double reserve = 0;   // seconds reserved for its answer before its deadline
  double estimate = 0;  // seconds, as in Outcome
  double come_back = 0;
  Job* next_dropped = nullptr;   // among those that are to be finished
  Job* next_computed = nullptr;  // among those being computed that are not small

  // Items that are known to be ready.
  std::int64_t ready() const { return status.ok() ? work->ready() + (next.has_value() ? 1 : 0) : 0; }
  // The next item, without taking it; null if none is ready.
  const Item* Peek() {
    if (!next.has_value()) next = work->Next();
    return next.has_value() ? &*next : nullptr;
  }
  Item Pop() {
    const Item item = *Peek();
    next.reset();
    return item;
  }
  // Lets no further item begin. The job must not be in the queue.
  void GiveUp(const absl::Status& why) {
    if (status.ok()) status = why;
    next.reset();
  }
  // Whether nothing of it runs or will run. Running items may unlock others.
  bool finished() const { return running == 0 && ready() == 0; }
};

bool LeastServed::operator()(const Job* a, const Job* b) const {
  return std::tie(a->served, a->sequence) < std::tie(b->served, b->sequence);
}

// Allocates nothing except for the error, and never fails.
absl::Status Interruption(const SubmitOptions& options, NowFunction now) {
  if (options.cancel.cancelled()) {
    return memory::CatchNoMemory([] { return absl::CancelledError("the call was cancelled"); });
  }
  if (options.deadline != Clock::time_point::max() && now() > options.deadline) {
    return memory::CatchNoMemory(
        [] { return absl::DeadlineExceededError("the call's deadline passed while it was being computed"); });
  }
  return absl::OkStatus();
}

// Destroys the job, then tells the submitter.
void Finish(std::unique_ptr<Job> job, Clock::time_point now) {
  job->on_cancel.reset();
  const Clock::time_point started = job->started.value_or(now);
  const Outcome outcome{job->status, absl::FromChrono(started - job->submitted), absl::FromChrono(now - started),
                        absl::Seconds(job->estimate), absl::Seconds(job->come_back)};
  const std::function<void(const Outcome&)> done = std::move(job->done);
  job.reset();
  done(outcome);
}

}  // namespace

class Scheduler::Impl {
 public:
  Impl(int threads, Clock::duration max_wait, NowFunction now)
      : threads_(threads),
        max_wait_(max_wait),
        now_(now),
        turns_(threads * kTurnCost),
        arenas_(static_cast<std::size_t>(threads)),
        guest_arenas_(static_cast<std::size_t>(threads)),
        guest_seconds_(static_cast<std::size_t>(threads)),
        pool_(threads, /*allow_spinning=*/false) {}

  ~Impl() {
    absl::MutexLock lock(&mutex_);
    while (jobs_ > 0 || runners_ > 0) idle_.Wait(&mutex_);
  }

  int threads() const { return threads_; }

  QueueUse GetQueueUse() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return {static_cast<std::int64_t>(turns_.waiting()), refused_, expired_};
  }

  void Submit(std::unique_ptr<Job> job, const std::stop_source& cancel) {
    job->submitted = now_();
    const absl::Status begun = memory::CatchNoMemoryIn([this, &job] { RunCheapItems(*job); });
    if (!begun.ok()) job->GiveUp(begun);
    if (job->finished()) {
      Finish(std::move(job), now_());
      return;
    }
    // Before it is queued, since it may be finished and destroyed from then on.
    job->on_cancel.emplace(cancel.get_token(), [this, waiting = job.get()] { Cancelled(waiting); });
    if (!Enqueue(job)) Finish(std::move(job), now_());
  }

 private:
  // Takes ownership of the job. Returns false if the job is refused, there is no memory for it, or it was cancelled so
  // early that Cancelled could not handle it.
  bool Enqueue(std::unique_ptr<Job>& job) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (job->options.cancel.cancelled()) {
      job->status = Interruption(job->options, now_);
      return false;
    }
    job->caller = job->options.caller;
    job->small = job->left <= kSmallWork;
    ComeLast(job.get());
    job->status = Refusal(*job);
    if (job->status.ok() && !job->small) {
      job->status = memory::CatchNoMemoryIn([turns = &turns_, &job] { turns->Join(job.get()); });
    }
    if (!job->status.ok()) return false;
    ++jobs_;
    job->queued = true;
    if (job->small) {
      Begin(job.release());
    } else {
      job->place = Place::kWaiting;
      turns_.Wait(job.release());
      BeginTurns();
    }
    WakeRunners();
    FinishDropped();
    return true;
  }

  // Orders the job within its caller: by its deadline, or, if it has none, behind all others without one.
  void ComeLast(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    job->sequence = next_sequence_++;
    if (job->options.deadline != Clock::time_point::max()) {
      job->due = job->options.deadline;
    } else {
      const Clock::time_point now = now_();
      job->due = max_wait_ < Clock::time_point::max() - now ? now + max_wait_ : Clock::time_point::max();
    }
  }

  // Cost that the threads compute per second; 0 while unknown.
  double PerSecond() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return rate_.per_second() * threads_; }

  // RESOURCE_EXHAUSTED if a job that comes now would be done too late. Accepts it if next to nothing is before it.
  // Allocates nothing except for the error.
  absl::Status Refusal(Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const double per_second = PerSecond();
    if (per_second == 0) return absl::OkStatus();
    const bool has_deadline = job.options.deadline != Clock::time_point::max();
    if (!has_deadline && max_wait_ == Clock::duration::max()) return absl::OkStatus();
    const std::chrono::duration<double> time =
        has_deadline ? std::chrono::duration<double>(job.options.deadline - now_()) * kUsableTime
                     : std::chrono::duration<double>(max_wait_);
    const double enough = time.count() * per_second;
    // Jobs that are due later than this one may have been accepted by the same estimate and must not become late
    // because of it. Jobs that are due much later, or have no deadline, can wait.
    Clock::time_point until = job.due;
    if (has_deadline) {
      job.reserve = time.count() / kUsableTime - time.count();
      until += std::min(job.due - now_(), Clock::time_point::max() - job.due);
    }
    double before = small_left_;
    if (!job.small) before += ComputedBefore(job, until) + turns_.CostBefore(job, until, enough);
    if (before < std::max(kNothing, kLittle * enough)) return absl::OkStatus();
    if (before + (has_deadline ? job.left : 0) <= enough) return absl::OkStatus();
    ++refused_;
    job.estimate = (before + (has_deadline ? job.left : 0)) / per_second;
    job.come_back = std::clamp(job.estimate - time.count(), kSoonest, kLatest);
    return memory::CatchNoMemory([] { return absl::ResourceExhaustedError("too much stands before the work"); });
  }

  // The cost of computed jobs that `job` has to wait for: all that is left of its caller's jobs that are due by
  // `until`; of each other job, at most the cost of `job` and one turn.
  double ComputedBefore(const Job& job, Clock::time_point until) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    double cost = 0;
    for (const Job* other = computed_; other != nullptr; other = other->next_computed) {
      const bool first = other->caller == job.caller && other->due <= until;
      cost += first ? other->left : std::min(other->left, job.left + threads_ * kTurnCost);
    }
    return cost;
  }

  // Starts computing the job's items, beside those of other jobs.
  void Begin(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    job->place = Place::kComputed;
    job->served = clock_;
    ++computing_;
    if (job->small) {
      small_left_ += job->left;
    } else {
      job->next_computed = std::exchange(computed_, job);
    }
    Queue(job);
  }

  // Stops computing the job's items. Takes the job out of the queue; the caller sets its place.
  void EndComputing(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Unqueue(job);
    --computing_;
    if (job->small) {
      small_left_ -= job->left;
      return;
    }
    Job** at = &computed_;  // a short list
    while (*at != job) at = &(*at)->next_computed;
    *at = job->next_computed;
  }

  // An item has run: advances the virtual time by its cost, shared among the jobs being computed. While small jobs come
  // one after the other, nothing else would, and each would come before the jobs in turn, which have received more.
  // Not beyond what these have received, so that small jobs do not come after them.
  void AdvanceClock(double cost) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    double advanced = clock_ + cost / static_cast<double>(std::max<std::int64_t>(1, computing_));
    for (const Job* job = computed_; job != nullptr; job = job->next_computed) {
      advanced = std::min(advanced, job->served);
    }
    clock_ = std::max(clock_, advanced);
  }

  // Begins the next jobs in turn while too few items are ready.
  void BeginTurns() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (turns_ready_ < 2 * threads_) {
      auto* const job = static_cast<Job*>(turns_.Take());
      if (job == nullptr) return;
      job->place = Place::kNone;
      if (absl::Status late = Late(*job); !late.ok()) {
        if (!job->started && !job->options.cancel.cancelled()) ++expired_;
        job->GiveUp(late);
        Drop(job);
      } else {
        Begin(job);
      }
    }
  }

  // An error if a job can no longer be done in time, or has waited too long. Allocates nothing except for the error.
  absl::Status Late(Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (absl::Status status = Interruption(job.options, now_); !status.ok()) return status;
    if (job.started) return absl::OkStatus();
    const Clock::time_point now = now_();
    if (job.options.deadline == Clock::time_point::max()) {
      if (now <= job.due) return absl::OkStatus();
      job.estimate = absl::ToDoubleSeconds(absl::FromChrono(now - job.submitted));
      job.come_back = kSoonest;
      return memory::CatchNoMemory([] { return absl::ResourceExhaustedError("the work has waited in vain"); });
    }
    const double per_second = PerSecond();
    const double time = std::chrono::duration<double>(job.options.deadline - now).count() - job.reserve / 2;
    if (computed_ == nullptr && turns_.empty()) return absl::OkStatus();  // there is no other job to delay
    if (per_second == 0 || job.left <= time * per_second) return absl::OkStatus();
    return memory::CatchNoMemory([] {
      return absl::DeadlineExceededError("the call waited until it could not be computed before its deadline any more");
    });
  }

  // If nothing of the job runs, lets FinishDropped finish it.
  void Drop(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!TakeIfFinished(job)) return;
    job->next_dropped = dropped_;
    dropped_ = job;
  }

  // Releases the lock in between.
  void FinishDropped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (dropped_ != nullptr) {
      Job* const job = std::exchange(dropped_, dropped_->next_dropped);
      mutex_.Unlock();
      Finish(std::unique_ptr<Job>(job), now_());
      mutex_.Lock();
      CountOut();
    }
  }

  // A job's `done` has returned.
  void CountOut() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    --jobs_;
    if (jobs_ == 0 && runners_ == 0) idle_.SignalAll();
  }

  // Gives the job up, from its cancel callback. The job lives until this returns unless this finishes it, which is the
  // last thing that the callback does.
  void Cancelled(Job* job) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      if (!job->queued || !job->status.ok()) return;
      // The RPC library cancels a call when its deadline has passed.
      if (!job->started && job->options.deadline <= now_()) ++expired_;
      GiveUp(job, Interruption(job->options, now_));
      // A runner has to begin the next job: it may find jobs to finish, and finishing waits for their cancel callbacks,
      // of which this is one.
      if (!turns_.empty()) WakeRunner();
      if (!TakeIfFinished(job)) return;
    }
    Finish(std::unique_ptr<Job>(job), now_());
    absl::MutexLock lock(&mutex_);
    CountOut();
  }

  // Returns true to the one caller that must finish the job.
  bool TakeIfFinished(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!job->queued || !job->finished()) return false;
    job->queued = false;
    if (job->place == Place::kComputed) EndComputing(job);
    if (!job->small) turns_.Leave(job);
    return true;
  }

  // Runs the job's items on the calling thread while they are cheap.
  void RunCheapItems(Job& job) const {
    static thread_local Arena arena;
    double spent = 0;
    const absl::Cleanup count = [&] { job.left = std::max(0.0, job.left - spent); };
    const auto pause = [this, &job] {
      job.status = Interruption(job.options, now_);
      return job.status.ok();
    };
    while (const Item* next = job.Peek()) {
      if (spent + next->cost > kInlineCost) return;
      if (!pause()) return;
      const Item item = job.Pop();
      if (!job.started) job.started = now_();
      job.work->Run(item, arena, pause);
      job.work->Finish(item);
      spent += item.cost;
    }
  }

  // Puts a job into the queue if it has ready items. Allocates nothing.
  void Queue(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    job->counted = job->ready();
    if (job->counted == 0) return;
    queue_.insert(std::move(job->node));
    ready_items_ += job->counted;
    if (!job->small) turns_ready_ += job->counted;
  }

  // Takes a job out of the queue. Call before changing what decides its place or its ready items.
  void Unqueue(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto at = queue_.find(job);
    if (at == queue_.end()) return;
    ready_items_ -= job->counted;
    if (!job->small) turns_ready_ -= job->counted;
    job->node = queue_.extract(at);
  }

  void GiveUp(Job* job, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (job->place == Place::kWaiting) turns_.Remove(job);
    if (job->place == Place::kComputed) EndComputing(job);
    job->place = Place::kNone;
    job->GiveUp(why);
  }

  // Wakes as many threads as there are items for.
  void WakeRunners() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (runners_ < threads_ && idle_claims_ < ready_items_) WakeRunner();
  }

  void WakeRunner() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (runners_ == threads_) return;
    ++runners_;
    ++idle_claims_;
    pool_.Schedule([this] { RunItems(); });
  }

  // What a pool thread runs, as long as there are ready items.
  void RunItems() ABSL_LOCKS_EXCLUDED(mutex_) {
    const auto thread = static_cast<std::size_t>(pool_.CurrentThreadId());
    mutex_.Lock();
    --idle_claims_;
    for (;;) {
      BeginTurns();
      FinishDropped();
      if (queue_.empty()) break;
      Job* const job = *queue_.begin();
      RunItemOf(job, arenas_[thread], thread, [this, job, thread] { return PauseFor(job, thread); });
    }
    --runners_;
    if (jobs_ == 0 && runners_ == 0) idle_.SignalAll();
    mutex_.Unlock();
  }

  // Runs the next item of a job in the queue, and finishes the job if that was its last item. Releases the lock in
  // between. Returns the item's cost.
  double RunItemOf(Job* job, Arena& arena, std::size_t thread, Pause pause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const std::optional<Item> item = TakeItem(job);
    if (item) {
      const double guests = guest_seconds_[thread];
      mutex_.Unlock();
      const Clock::time_point begun = now_();
      const absl::Status ran = memory::CatchNoMemoryIn([&] { job->work->Run(*item, arena, pause); });
      const std::chrono::duration<double> took = now_() - begun;
      mutex_.Lock();
      const double seconds = took.count() - (guest_seconds_[thread] - guests);
      guest_seconds_[thread] += seconds;
      if (job->status.ok() && ran.ok() && job->work->tells_speed()) rate_.Add(item->cost, seconds);
      ReturnItem(job, *item, ran);
    }
    if (TakeIfFinished(job)) {
      BeginTurns();
      WakeRunners();
      mutex_.Unlock();
      Finish(std::unique_ptr<Job>(job), now_());
      mutex_.Lock();
      CountOut();
    }
    return item ? item->cost : 0;
  }

  // Called in the middle of a long item of `job`: checks its cancellation and deadline, and runs short items of jobs
  // that have been served less, so that they need not wait for the end of the long item.
  bool PauseFor(Job* job, std::size_t thread) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (!job->status.ok()) return false;
    if (const absl::Status status = Interruption(job->options, now_); !status.ok()) {
      GiveUp(job, status);
      return false;
    }
    for (double spent = 0; spent < kGuestCost;) {
      Job* const guest = ShortJobBefore(job);
      if (guest == nullptr) break;
      // A guest's item has no guests of its own: they would need a third arena, and the stack would grow.
      spent += RunItemOf(guest, guest_arenas_[thread], thread, [this, guest] { return !GivenUp(guest); });
    }
    return job->status.ok();
  }

  bool GivenUp(const Job* job) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return !job->status.ok();
  }

  // The first job that has been served less than `job` and whose next item is short; null if there is none.
  Job* ShortJobBefore(const Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (Job* const other : queue_) {
      if (other == job || other->served >= job->served) return nullptr;
      const Item* const next = other->Peek();
      if (next != nullptr && next->cost <= kGuestCost) return other;
    }
    return nullptr;
  }

  // Takes the job's next item; nullopt if the job is given up, and then it is no longer in the queue.
  std::optional<Item> TakeItem(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (const absl::Status status = Interruption(job->options, now_); !status.ok()) {
      if (!job->started && !job->options.cancel.cancelled()) ++expired_;
      GiveUp(job, status);
      return std::nullopt;
    }
    Unqueue(job);
    if (!job->started) job->started = now_();
    const Item item = job->Pop();
    clock_ = std::max(clock_, job->served);
    job->served += item.cost;
    ++job->running;
    if (!Charge(job, item.cost) && !turns_.empty() && job->ready() > 0) {
      EndComputing(job);
      job->place = Place::kWaiting;
      if (job->options.deadline == Clock::time_point::max()) ComeLast(job);
      turns_.Wait(job);
    } else {
      Queue(job);
    }
    BeginTurns();
    WakeRunners();  // taking an item may have made others ready
    return item;
  }

  // Returns false if the turn of the job's caller is over.
  bool Charge(Job* job, double cost) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!job->small) return turns_.Charge(job, cost);
    const double before = std::exchange(job->left, std::max(0.0, job->left - cost));
    small_left_ -= before - job->left;
    return true;
  }

  // An item that ran out of memory ends the job: no further item begins.
  void ReturnItem(Job* job, const Item& item, const absl::Status& ran) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    --job->running;
    AdvanceClock(item.cost);
    if (!job->status.ok()) return;
    if (!ran.ok()) {
      GiveUp(job, ran);
    } else if (job->place == Place::kWaiting) {
      job->work->Finish(item);
    } else {
      Unqueue(job);
      job->work->Finish(item);
      Queue(job);
    }
    BeginTurns();
    WakeRunners();
  }

  // Seconds: bounds of Outcome::come_back.
  static constexpr double kSoonest = 0.01, kLatest = 30;

  static constexpr double kNothing = 1;    // of cost: less is rounding error
  static constexpr double kLittle = 0.05;  // share of the time available: a shorter wait makes no job late

  const int threads_;
  const Clock::duration max_wait_;
  const NowFunction now_;

  mutable absl::Mutex mutex_;
  absl::CondVar idle_;                                    // no job and no runner is left
  Turns turns_ ABSL_GUARDED_BY(mutex_);                   // waiting jobs; small jobs never wait
  JobQueue queue_ ABSL_GUARDED_BY(mutex_);                // computed jobs with ready items
  std::int64_t turns_ready_ ABSL_GUARDED_BY(mutex_) = 0;  // ready items of jobs in queue_ that are not small
  Job* computed_ ABSL_GUARDED_BY(mutex_) = nullptr;       // computed jobs that are not small, ready or not
  double small_left_ ABSL_GUARDED_BY(mutex_) = 0;         // cost that is left of small jobs
  WorkRate rate_ ABSL_GUARDED_BY(mutex_);                 // of one thread
  Job* dropped_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t expired_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t ready_items_ ABSL_GUARDED_BY(mutex_) = 0;  // of all queued jobs
  std::int64_t jobs_ ABSL_GUARDED_BY(mutex_) = 0;         // jobs whose `done` has not returned, except those run inline
  std::int64_t idle_claims_ ABSL_GUARDED_BY(mutex_) = 0;  // woken runners that have not reached their first item
  int runners_ ABSL_GUARDED_BY(mutex_) = 0;               // threads in RunItems or on their way to it
  std::int64_t computing_ ABSL_GUARDED_BY(mutex_) = 0;    // computed jobs, small ones included
  double clock_ ABSL_GUARDED_BY(mutex_) = 0;              // virtual time: `served` of a job that begins now
  std::uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<Arena> arenas_;        // by pool thread
  std::vector<Arena> guest_arenas_;  // for items that run while another item of the same thread pauses
  std::vector<double> guest_seconds_ ABSL_GUARDED_BY(mutex_);  // by thread: time of all its items, guests included
  Eigen::ThreadPool pool_;
};

Scheduler::Scheduler(int threads, Clock::duration max_wait, NowFunction now)
    : impl_(std::make_unique<Impl>(threads, max_wait, now)) {}
Scheduler::~Scheduler() = default;

int Scheduler::threads() const { return impl_->threads(); }
QueueUse Scheduler::GetQueueUse() const { return impl_->GetQueueUse(); }

void Scheduler::Submit(std::unique_ptr<Work> work, SubmitOptions options, std::function<void(const Outcome&)> done) {
  std::unique_ptr<Job> job;
  const absl::Status made = memory::CatchNoMemoryIn([&job] {
    auto begun = std::make_unique<Job>();
    JobQueue place;
    place.insert(begun.get());
    begun->node = place.extract(place.begin());
    job = std::move(begun);
  });
  if (!made.ok()) {
    work.reset();
    return done(Outcome{made, absl::ZeroDuration(), absl::ZeroDuration()});
  }
  job->work = std::move(work);
  job->left = job->work->cost();
  const std::stop_source cancel = options.cancel.source_;
  job->options = std::move(options);
  job->done = std::move(done);
  impl_->Submit(std::move(job), cancel);
}

}  // namespace attnd::schedule
