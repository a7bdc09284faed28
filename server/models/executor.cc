#include "server/models/executor.h"

#include <cstddef>
#include <utility>

#include "absl/cleanup/cleanup.h"

namespace attnd::server {

Executor::Executor(int threads, std::int64_t max_bytes) : max_bytes_(max_bytes) {
  threads_.reserve(static_cast<std::size_t>(threads));
  // Without memory for a thread those before it end too.
  absl::Cleanup end = [this] { End(); };
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  std::move(end).Cancel();
}

Executor::~Executor() { End(); }

void Executor::End() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

std::optional<std::uint64_t> Executor::Submit(std::int64_t bytes, std::function<void()> job) {
  absl::MutexLock lock(&mutex_);
  if (bytes > max_bytes_ - waiting_bytes_) return std::nullopt;
  waiting_.emplace(last_ticket_ + 1, Job{bytes, std::move(job)});
  // Queued: from here on nothing takes memory.
  waiting_bytes_ += bytes;
  return ++last_ticket_;
}

bool Executor::Drop(std::uint64_t ticket) {
  Job dropped;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  const auto found = waiting_.find(ticket);
  if (found == waiting_.end()) return false;
  dropped = std::move(found->second);
  waiting_.erase(found);
  waiting_bytes_ -= dropped.bytes;
  return true;
}

void Executor::Hold(std::int64_t result_bytes) {
  absl::MutexLock lock(&mutex_);
  result_bytes_ += result_bytes;
}

void Executor::Release(std::int64_t result_bytes) {
  absl::MutexLock lock(&mutex_);
  result_bytes_ -= result_bytes;
}

bool Executor::busy() const {
  absl::MutexLock lock(&mutex_);
  return !waiting_.empty() || running_ > 0 || result_bytes_ > 0;
}

void Executor::Work() {
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Executor::WorkersHaveSomethingToDo));
      if (stopping_) return;
      const auto first = waiting_.begin();
      job = std::move(first->second);
      waiting_.erase(first);
      waiting_bytes_ -= job.bytes;
      ++running_;
    }
    job.run();
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace attnd::server
