#include "server/models/executor.h"

#include <cstddef>
#include <utility>

#include "absl/cleanup/cleanup.h"

namespace attnd::server {

Executor::Executor(int threads) {
  threads_.reserve(static_cast<std::size_t>(threads));
  // If a thread cannot be started, end those before it.
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

std::uint64_t Executor::Submit(std::function<void()> job) {
  absl::MutexLock lock(&mutex_);
  waiting_.emplace(last_number_ + 1, std::move(job));
  // Queued: nothing below allocates.
  return ++last_number_;
}

bool Executor::Drop(std::uint64_t number) {
  std::function<void()> dropped;  // destroyed after the lock is released
  absl::MutexLock lock(&mutex_);
  const auto found = waiting_.find(number);
  if (found == waiting_.end()) return false;
  dropped = std::move(found->second);
  waiting_.erase(found);
  return true;
}

bool Executor::busy() const {
  absl::MutexLock lock(&mutex_);
  return !waiting_.empty() || running_ > 0;
}

void Executor::Work() {
  while (true) {
    std::function<void()> job;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Executor::WorkersHaveSomethingToDo));
      if (stopping_) return;
      const auto first = waiting_.begin();
      job = std::move(first->second);
      waiting_.erase(first);
      ++running_;
    }
    job();
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace attnd::server
