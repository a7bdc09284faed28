#include "schedule/scheduler.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include <unsupported/Eigen/CXX11/ThreadPool>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "memory/no_memory.h"
#include "schedule/arena.h"

namespace attnd::schedule {
namespace {

// While a long item pauses, others run that cost at most this, and as much in all.
constexpr double kGuestCost = kPauseCost;

struct Job;

// Jobs that have ready items, least served first.
struct LeastServed {
  bool operator()(const Job* a, const Job* b) const;
};
using JobQueue = std::set<Job*, LeastServed>;

// One submitted work. What follows `on_cancel` belongs to the scheduler's lock.
struct Job {
  std::unique_ptr<Work> work;
  SubmitOptions options;
  std::function<void(const Outcome&)> done;
  Clock::time_point submitted = Clock::now();
  // Its destructor waits for the callback if another thread runs it.
  std::optional<std::stop_callback<std::function<void()>>> on_cancel;

  bool queued = false;       // the scheduler has it, until whoever sees that it is finished takes it
  JobQueue::node_type node;  // its place in the queue, while it is not there: to come back takes no memory
  std::int64_t counted = 0;  // ready items, as the scheduler's sum has them
  std::optional<Item> next;  // taken from the work, but not begun
  int running = 0;
  double served = 0;           // virtual time: cost given so far, from the clock's value when the job came
  std::uint64_t sequence = 0;  // breaks ties by arrival
  std::optional<Clock::time_point> started;
  absl::Status status;

  // Items that are known to be ready.
  std::int64_t ready() const { return status.ok() ? work->ready() + (next.has_value() ? 1 : 0) : 0; }
  // The next item, which stays; null if none is ready.
  const Item* Peek() {
    if (!next.has_value()) next = work->Next();
    return next.has_value() ? &*next : nullptr;
  }
  Item Pop() {
    const Item item = *Peek();
    next.reset();
    return item;
  }
  // Begins nothing more. Not for a job that stands in the queue.
  void GiveUp(const absl::Status& why) {
    if (status.ok()) status = why;
    next.reset();
  }
  // Whether nothing of it runs or will run. What runs may unlock more.
  bool finished() const { return running == 0 && ready() == 0; }
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
      : arenas_(static_cast<std::size_t>(threads)),
        guest_arenas_(static_cast<std::size_t>(threads)),
        pool_(threads, /*allow_spinning=*/false),
        threads_(threads) {}

  ~Impl() {
    absl::MutexLock lock(&mutex_);
    while (jobs_ > 0 || runners_ > 0) idle_.Wait(&mutex_);
  }

  int threads() const { return threads_; }

  void Submit(std::unique_ptr<Job> job, const std::stop_source& cancel) {
    const absl::Status begun = memory::CatchNoMemoryIn([&job] { RunCheapItems(*job); });
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
    Queue(job.release());
    WakeRunners();
    return true;
  }

  // Gives the job up. It lives until this returns, unless this finishes it; this is the last that its callback does.
  void Cancelled(Job* job) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      if (!job->queued || !job->status.ok()) return;
      GiveUp(job, Interruption(job->options));
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
    const auto pause = [&job] {
      job.status = Interruption(job.options);
      return job.status.ok();
    };
    while (const Item* next = job.Peek()) {
      if (spent + next->cost > kInlineCost) return;
      if (!pause()) return;
      const Item item = job.Pop();
      if (!job.started) job.started = Clock::now();
      job.work->Run(item, arena, pause);
      job.work->Finish(item);
      spent += item.cost;
    }
  }

  // Puts a job in its place, if it has ready items. Takes no memory.
  void Queue(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    job->counted = job->ready();
    if (job->counted == 0) return;
    queue_.insert(std::move(job->node));
    ready_items_ += job->counted;
  }

  // Takes it out; call it before what decides its place or its ready items changes.
  void Unqueue(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto at = queue_.find(job);
    if (at == queue_.end()) return;
    ready_items_ -= job->counted;
    job->node = queue_.extract(at);
  }

  void GiveUp(Job* job, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Unqueue(job);
    job->GiveUp(why);
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
    const auto thread = static_cast<std::size_t>(pool_.CurrentThreadId());
    mutex_.Lock();
    --idle_claims_;
    while (!queue_.empty()) {
      Job* const job = *queue_.begin();
      RunItemOf(job, arenas_[thread], [this, job, thread] { return PauseFor(job, guest_arenas_[thread]); });
    }
    --runners_;
    if (jobs_ == 0 && runners_ == 0) idle_.SignalAll();
    mutex_.Unlock();
  }

  // Runs the next item of a job that is in the queue, and finishes the job if that was its last. Gives the lock up in
  // between. Returns the item's cost.
  double RunItemOf(Job* job, Arena& arena, Pause pause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const std::optional<Item> item = TakeItem(job);
    if (item) {
      mutex_.Unlock();
      const absl::Status ran = memory::CatchNoMemoryIn([&] { job->work->Run(*item, arena, pause); });
      mutex_.Lock();
      ReturnItem(job, *item, ran);
    }
    if (TakeIfFinished(job)) {
      mutex_.Unlock();
      Finish(std::unique_ptr<Job>(job));
      mutex_.Lock();
      --jobs_;
    }
    return item ? item->cost : 0;
  }

  // In the middle of a long item of `job`: sees to its cancellation and deadline, and runs short items of jobs that
  // have been served less, so that they need not wait for its end.
  bool PauseFor(Job* job, Arena& guest_arena) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (!job->status.ok()) return false;
    if (const absl::Status status = Interruption(job->options); !status.ok()) {
      GiveUp(job, status);
      return false;
    }
    for (double spent = 0; spent < kGuestCost;) {
      Job* const guest = ShortJobBefore(job);
      if (guest == nullptr) break;
      // A guest's item has no guests of its own: a third arena would be needed, and the stack would grow.
      spent += RunItemOf(guest, guest_arena, [this, guest] { return !GivenUp(guest); });
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

  // The job's next item; nullopt if the job is to be given up, and then it is no longer queued.
  std::optional<Item> TakeItem(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (const absl::Status status = Interruption(job->options); !status.ok()) {
      GiveUp(job, status);
      return std::nullopt;
    }
    Unqueue(job);
    if (!job->started) job->started = Clock::now();
    const Item item = job->Pop();
    clock_ = std::max(clock_, job->served);
    job->served += item.cost;
    ++job->running;
    Queue(job);
    WakeRunners();  // taking an item may have made others ready
    return item;
  }

  // An item that had no memory ends the job: of the others nothing more is begun.
  void ReturnItem(Job* job, const Item& item, const absl::Status& ran) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    --job->running;
    if (!job->status.ok()) return;
    if (!ran.ok()) return GiveUp(job, ran);
    Unqueue(job);
    job->work->Finish(item);
    Queue(job);
    WakeRunners();
  }

  absl::Mutex mutex_;
  absl::CondVar idle_;  // no job and no runner is left
  JobQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::int64_t ready_items_ ABSL_GUARDED_BY(mutex_) = 0;  // of all queued jobs
  std::int64_t jobs_ ABSL_GUARDED_BY(mutex_) = 0;         // whose `done` has not returned, those run inline excepted
  std::int64_t idle_claims_ ABSL_GUARDED_BY(mutex_) = 0;  // runners woken that have not taken an item yet
  int runners_ ABSL_GUARDED_BY(mutex_) = 0;               // threads in RunItems or on their way to it
  double clock_ ABSL_GUARDED_BY(mutex_) = 0;              // `served` of the job that was last given an item
  std::uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<Arena> arenas_;        // by pool thread
  std::vector<Arena> guest_arenas_;  // of items that run while another of the same thread pauses
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
  const std::stop_source cancel = options.cancel.source_;
  job->options = std::move(options);
  job->done = std::move(done);
  impl_->Submit(std::move(job), cancel);
}

}  // namespace attnd::schedule
