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

LocalSocket::Made LocalCalls::Make(const CallOptions& options, absl::Duration left) const {
  return LocalSocket::Make(path_, user_agent_, keepalive_, Clock::now() + absl::ToChronoNanoseconds(left),
                           options.cancellation.get());
}

bool LocalCalls::Learn(LocalSocket::Made::Outcome outcome, absl::Duration waited) {
  using Outcome = LocalSocket::Made::Outcome;
  known_ = outcome == Outcome::kGreeted;
  if (known_) return true;
  // A caller that waited for less than kPatience does not know whether the server is silent.
  const bool refused =
      outcome == Outcome::kNotOffered || (outcome == Outcome::kSilent && waited >= absl::FromChrono(kPatience));
  rest_until_ = now_() + (refused ? kRestAfterRefusal : kRest);
  return false;
}

std::shared_ptr<LocalConnection> LocalCalls::Take(const CallOptions& options) {
  const absl::Duration left = std::min(options.deadline - absl::Now(), absl::FromChrono(kPatience));
  {
    absl::MutexLock lock(&mutex_);
    if (!idle_.empty()) {
      std::shared_ptr<LocalConnection> connection = std::move(idle_.back().connection);
      idle_.pop_back();
      return connection;
    }
    // While it is not known whether the server accepts calls, one caller at a time finds out; the others do not wait.
    if (left <= absl::ZeroDuration() || now_() < rest_until_ || made_ >= kMaxConnections || (!known_ && making_ > 0))
      return nullptr;
    ++made_;
    ++making_;
  }
  LocalSocket::Made made = Make(options, left);
  absl::MutexLock lock(&mutex_);
  --making_;
  if (Learn(made.outcome, left)) return std::make_shared<LocalConnection>(std::move(made.socket));
  --made_;
  return nullptr;
}

std::unique_ptr<LocalSocket> LocalCalls::Connect(const CallOptions& options) {
  const absl::Duration left = std::min(options.deadline - absl::Now(), absl::FromChrono(kPatience));
  {
    absl::MutexLock lock(&mutex_);
    if (left <= absl::ZeroDuration() || now_() < rest_until_) return nullptr;
  }
  LocalSocket::Made made = Make(options, left);
  absl::MutexLock lock(&mutex_);
  return Learn(made.outcome, left) ? std::move(made.socket) : nullptr;
}

void LocalCalls::Put(std::shared_ptr<LocalConnection> connection) {
  std::vector<Idle> surplus;  // closed outside the lock
  absl::ReleasableMutexLock lock(&mutex_);
  const Clock::time_point now = now_();
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
    if (rest > Clock::duration::zero()) rest_until_ = now_() + rest;
  }
  connection.reset();
}

}  // namespace attnd::client
