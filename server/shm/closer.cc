#include "server/shm/closer.h"

#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "memory/no_memory.h"

namespace attnd::server {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(1);

struct Item {
  shm::UniqueFd fd;
  std::shared_ptr<const void> held;
};

}  // namespace

struct Closer::State {
  absl::Mutex mutex;
  std::deque<Item> items ABSL_GUARDED_BY(mutex);       // the first is being closed
  std::size_t descriptors ABSL_GUARDED_BY(mutex) = 0;  // descriptors among the items
  bool stop ABSL_GUARDED_BY(mutex) = false;
  bool ended ABSL_GUARDED_BY(mutex) = false;

  bool Empty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return items.empty(); }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return stop || !items.empty(); }

  void Add(Item item) {
    const std::size_t added = item.fd.valid() ? 1 : 0;
    absl::MutexLock lock(&mutex);
    // If it is not queued, `item` is destroyed after the lock is released.
    if (memory::CatchNoMemoryIn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { items.push_back(std::move(item)); }).ok())
      descriptors += added;
  }

  void Run() {
    mutex.Lock();
    while (true) {
      mutex.Await(absl::Condition(this, &State::HasWork));
      if (items.empty()) break;
      Item item = std::exchange(items.front(), Item{});
      const std::size_t closed = item.fd.valid() ? 1 : 0;
      mutex.Unlock();
      item = Item{};
      mutex.Lock();
      items.pop_front();
      descriptors -= closed;
    }
    ended = true;
    mutex.Unlock();
  }
};

Closer::Closer() : state_(std::make_shared<State>()) {
  std::thread([state = state_] { state->Run(); }).detach();
}

Closer::~Closer() {
  absl::MutexLock lock(&state_->mutex);
  state_->stop = true;
  state_->mutex.AwaitWithTimeout(absl::Condition(&state_->ended), kPatience);
}

void Closer::Close(shm::UniqueFd fd) {
  if (fd.valid()) state_->Add({std::move(fd), nullptr});
}

void Closer::Release(std::shared_ptr<const void> held) {
  if (held != nullptr) state_->Add({shm::UniqueFd(), std::move(held)});
}

void Closer::Drain() {
  absl::MutexLock lock(&state_->mutex);
  state_->mutex.Await(absl::Condition(state_.get(), &State::Empty));
}

std::size_t Closer::waiting() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->descriptors;
}

}  // namespace attnd::server
