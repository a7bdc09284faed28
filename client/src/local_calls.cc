#include "client/src/local_calls.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/src/target.h"

namespace attnd::client {

std::shared_ptr<LocalCalls> LocalCalls::ForTarget(const std::string& target, std::string user_agent,
                                                  const Keepalive& keepalive) {
  std::optional<std::string> path = SocketBeside(target);
  if (!path.has_value()) return nullptr;
  return std::make_shared<LocalCalls>(*std::move(path), std::move(user_agent), keepalive);
}

std::shared_ptr<LocalConnection> LocalCalls::Take(const CallOptions& options) {
  using Outcome = LocalConnection::Made::Outcome;
  const absl::Duration left = std::min(options.deadline - absl::Now(), absl::FromChrono(kPatience));
  {
    absl::MutexLock lock(&mutex_);
    if (!idle_.empty()) {
      std::shared_ptr<LocalConnection> connection = std::move(idle_.back().connection);
      idle_.pop_back();
      return connection;
    }
    // While it is not known whether the server takes calls, one caller at a time finds out, and the others do not wait.
    if (left <= absl::ZeroDuration() || Clock::now() < rest_until_ || made_ >= kMaxConnections ||
        (!known_ && making_ > 0))
      return nullptr;
    ++made_;
    ++making_;
  }
  LocalConnection::Made made = LocalConnection::Make(
      path_, user_agent_, keepalive_, Clock::now() + absl::ToChronoNanoseconds(left), options.cancellation.get());
  absl::MutexLock lock(&mutex_);
  --making_;
  known_ = made.outcome == Outcome::kGreeted;
  if (known_) return std::move(made.connection);
  --made_;
  // Whoever had less patience than that does not know that the server is silent.
  const bool refused =
      made.outcome == Outcome::kNotOffered || (made.outcome == Outcome::kSilent && left >= absl::FromChrono(kPatience));
  rest_until_ = Clock::now() + (refused ? kRestAfterRefusal : kRest);
  return nullptr;
}

void LocalCalls::Put(std::shared_ptr<LocalConnection> connection) {
  std::vector<Idle> surplus;  // closed outside the lock
  absl::ReleasableMutexLock lock(&mutex_);
  const Clock::time_point now = Clock::now();
  idle_.push_back({std::move(connection), now});
  while (now - idle_.front().since > kMaxIdleTime) {
    surplus.push_back(std::move(idle_.front()));
    idle_.pop_front();
    --made_;
  }
  lock.Release();
}

void LocalCalls::Drop(std::shared_ptr<LocalConnection> connection) {
  connection.reset();
  absl::MutexLock lock(&mutex_);
  --made_;
}

void LocalCalls::DropAll(std::shared_ptr<LocalConnection> connection, Clock::duration rest) {
  std::deque<Idle> idle;  // closed outside the lock
  {
    absl::MutexLock lock(&mutex_);
    idle.swap(idle_);
    made_ -= idle.size() + 1;
    if (rest > Clock::duration::zero()) rest_until_ = Clock::now() + rest;
  }
  connection.reset();
}

}  // namespace attnd::client
