#include "schedule/scheduler.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include <unsupported/Eigen/CXX11/ThreadPool>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "memory/no_memory.h"
#include "schedule/arena.h"

namespace attnd::schedule {
namespace {

// Work of up to this cost (multiply-adds: some ten microseconds) runs on the submitting thread: waking another would
// take as long as the work itself.
constexpr double kInlineCost = 1 << 19;

using Unlocked = absl::InlinedVector<Item, 16>;

struct Job;

// Jobs that have ready items, least served first.
struct LeastServed {
  bool operator()(const Job* a, const Job* b) const;
};
using Queue = std::set<Job*, LeastServed>;

// One submitted work. What follows `on_cancel` belongs to the scheduler's lock.
struct Job {
  std::unique_ptr<Work> work;
  SubmitOptions options;
  std::function<void(const Outcome&)> done;
  Clock::time_point submitted = Clock::now();
  // Its destructor waits for the callback if another thread runs it.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel;

  bool queued = false;          // the scheduler has it, until whoever sees that it is finished takes it
  Queue::node_type place;       // in the queue, while it is not there: to come back takes no memory
  std::vector<Item> ready;      // a heap by RunsLater
  std::int64_t unfinished = 0;  // items that have not run
  int running = 0;
  double served = 0;           // virtual time: cost given so far, from the clock's value when the job came
  std::uint64_t sequence = 0;  // breaks ties by arrival
  std::optional<Clock::time_point> started;
  absl::Status status;

  void Push(const Item& item) {
    ready.push_back(item);
    std::push_heap(ready.begin(), ready.end(), RunsLater);
  }
  Item Pop() {
    std::pop_heap(ready.begin(), ready.end(), RunsLater);
    const Item item = ready.back();
    ready.pop_back();
    return item;
  }
  // Of what is ready nothing will run. Not for a job that stands in the queue.
  void GiveUp(const absl::Status& why) {
    if (status.ok()) status = why;
    ready.clear();
  }
  // Whether nothing of it runs or will run.
  bool finished() const { return running == 0 && (unfinished == 0 || !status.ok()); }
};

bool LeastServed::operator()(const Job* a, const Job* b) const {
  return std::tie(a->served, a->sequence) < std::tie(b->served, b->sequence);
}

// Takes no memory but for the error, and never fails.
absl::Status Interruption(const SubmitOptions& options) {
  if (options.cancel.cancelled()) {
    return memory::CatchNoMemory([] { return absl::CancelledError("the call was cancelled"); });
  }
  if (options.deadline != Clock::time_point::max() && Clock::now() > options.deadline) {
    return memory::CatchNoMemory(
        [] { return absl::DeadlineExceededError("the call's deadline passed while it was being computed"); });
  }
  return absl::OkStatus();
}

// Destroys the job, then tells the submitter.
void Finish(std::unique_ptr<Job> job) {
  job->on_cancel.reset();
  const Clock::time_point now = Clock::now();
  const Clock::time_point started = job->started.value_or(now);
  const Outcome outcome{job->status, absl::FromChrono(started - job->submitted), absl::FromChrono(now - started)};
  const std::function<void(const Outcome&)> done = std::move(job->done);
  job.reset();
  done(outcome);
}

}  // namespace

class Scheduler::Impl {
 public:
  explicit Impl(int threads)
      : arenas_(static_cast<std::size_t>(threads)), pool_(threads, /*allow_spinning=*/false), threads_(threads) {}

  ~Impl() {
    absl::MutexLock lock(&mutex_);
    while (jobs_ > 0 || runners_ > 0) idle_.Wait(&mutex_);
  }

  int threads() const { return threads_; }

  void Submit(std::unique_ptr<Job> job, const std::stop_source& cancel) {
    const absl::Status begun = memory::CatchNoMemoryIn([&job] {
      job->unfinished = job->work->item_count();
      for (const Item& item : job->work->initial_items()) job->Push(item);
      RunCheapItems(*job);
    });
    if (!begun.ok()) job->GiveUp(begun);
    if (job->finished()) {
      Finish(std::move(job));
      return;
    }
    // Before it is queued, since it may be finished and destroyed from then on.
    job->on_cancel.emplace(cancel.get_token(), [this, waiting = job.get()] { Cancelled(waiting); });
    if (!Enqueue(job)) Finish(std::move(job));
  }

 private:
  // Takes the job over, or returns false if it has been cancelled: then Cancelled came too early to see to it.
  bool Enqueue(std::unique_ptr<Job>& job) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (job->options.cancel.cancelled()) {
      job->status = Interruption(job->options);
      return false;
    }
    ++jobs_;
    job->queued = true;
    job->sequence = next_sequence_++;
    job->served = clock_;
    Enter(job.release());
    WakeRunners();
    return true;
  }

  // Gives the job up. It lives until this returns, unless this finishes it; this is the last that its callback does.
  void Cancelled(Job* job) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      if (!job->queued || !job->status.ok() || job->unfinished == 0) return;
      Leave(job);
      job->ready.clear();
      job->status = Interruption(job->options);
      if (!TakeIfFinished(job)) return;
    }
    Finish(std::unique_ptr<Job>(job));
    absl::MutexLock lock(&mutex_);
    --jobs_;
    if (jobs_ == 0 && runners_ == 0) idle_.SignalAll();
  }

  // True for the one caller that is to finish the job.
  bool TakeIfFinished(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!job->queued || !job->finished()) return false;
    job->queued = false;
    return true;
  }

  // Runs the job's items on the calling thread for as long as they are cheap.
  static void RunCheapItems(Job& job) {
    static thread_local Arena arena;
    double spent = 0;
    while (!job.ready.empty() && spent + job.ready.front().cost <= kInlineCost) {
      job.status = Interruption(job.options);
      if (!job.status.ok()) return;
      const Item item = job.Pop();
      if (!job.started) job.started = Clock::now();
      job.work->Run(item.id, arena, [&job](Item unlocked) { job.Push(unlocked); });
      --job.unfinished;
      spent += item.cost;
    }
  }

  void Enter(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!job->ready.empty()) queue_.insert(std::move(job->place));
    ready_items_ += static_cast<std::int64_t>(job->ready.size());
  }

  void Leave(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!job->ready.empty()) job->place = queue_.extract(job);
    ready_items_ -= static_cast<std::int64_t>(job->ready.size());
  }

  // As many threads as there are items for.
  void WakeRunners() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (runners_ < threads_ && idle_claims_ < ready_items_) {
      ++runners_;
      ++idle_claims_;
      pool_.Schedule([this] { RunItems(); });
    }
  }

  // A thread's life while there is anything to run.
  void RunItems() ABSL_LOCKS_EXCLUDED(mutex_) {
    Arena& arena = arenas_[static_cast<std::size_t>(pool_.CurrentThreadId())];
    Unlocked unlocked;
    mutex_.Lock();
    --idle_claims_;
    while (!queue_.empty()) {
      Job* job = *queue_.begin();
      const std::optional<Item> item = TakeItem(job);
      if (item) {
        mutex_.Unlock();
        unlocked.clear();
        const absl::Status ran = memory::CatchNoMemoryIn(
            [&] { job->work->Run(item->id, arena, [&unlocked](Item next) { unlocked.push_back(next); }); });
        mutex_.Lock();
        ReturnItem(job, ran, unlocked);
      }
      if (TakeIfFinished(job)) {
        mutex_.Unlock();
        Finish(std::unique_ptr<Job>(job));
        mutex_.Lock();
        --jobs_;
      }
    }
    --runners_;
    if (jobs_ == 0 && runners_ == 0) idle_.SignalAll();
    mutex_.Unlock();
  }

  // The job's next item; nullopt if the job is to be given up, and then it is no longer queued.
  std::optional<Item> TakeItem(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Leave(job);
    job->status = Interruption(job->options);
    if (!job->status.ok()) {
      job->ready.clear();
      return std::nullopt;
    }
    if (!job->started) job->started = Clock::now();
    const Item item = job->Pop();
    clock_ = std::max(clock_, job->served);
    job->served += item.cost;
    ++job->running;
    Enter(job);
    return item;
  }

  // An item that had no memory ends the job: of the others nothing more is begun.
  void ReturnItem(Job* job, absl::Status ran, const Unlocked& unlocked) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    --job->running;
    --job->unfinished;
    if (!job->status.ok() || (ran.ok() && unlocked.empty())) return;
    Leave(job);
    if (ran.ok()) {
      ran = memory::CatchNoMemoryIn([&] {
        for (const Item& item : unlocked) job->Push(item);
      });
    }
    if (!ran.ok()) return job->GiveUp(ran);
    Enter(job);
    WakeRunners();
  }

  absl::Mutex mutex_;
  absl::CondVar idle_;  // no job and no runner is left
  Queue queue_ ABSL_GUARDED_BY(mutex_);
  std::int64_t ready_items_ ABSL_GUARDED_BY(mutex_) = 0;  // of all queued jobs
  std::int64_t jobs_ ABSL_GUARDED_BY(mutex_) = 0;         // whose `done` has not returned, those run inline excepted
  std::int64_t idle_claims_ ABSL_GUARDED_BY(mutex_) = 0;  // runners woken that have not taken an item yet
  int runners_ ABSL_GUARDED_BY(mutex_) = 0;               // threads in RunItems or on their way to it
  double clock_ ABSL_GUARDED_BY(mutex_) = 0;              // `served` of the job that was last given an item
  std::uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<Arena> arenas_;  // by pool thread
  Eigen::ThreadPool pool_;
  const int threads_;
};

Scheduler::Scheduler(int threads) : impl_(std::make_unique<Impl>(threads)) {}
Scheduler::~Scheduler() = default;

int Scheduler::threads() const { return impl_->threads(); }

void Scheduler::Submit(std::unique_ptr<Work> work, SubmitOptions options, std::function<void(const Outcome&)> done) {
  std::unique_ptr<Job> job;
  const absl::Status made = memory::CatchNoMemoryIn([&job] {
    auto begun = std::make_unique<Job>();
    Queue place;
    place.insert(begun.get());
    begun->place = place.extract(place.begin());
    job = std::move(begun);
  });
  if (!made.ok()) {
    work.reset();
    return done(Outcome{made, absl::ZeroDuration(), absl::ZeroDuration()});
  }
  job->work = std::move(work);
  const std::stop_source cancel = options.cancel.source_;
  job->options = std::move(options);
  job->done = std::move(done);
  impl_->Submit(std::move(job), cancel);
}

}  // namespace attnd::schedule
