// Sends calls again that the server refused or lost, within a budget.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/options.h"

namespace attnd::client {

// How many repeats a client may send: `share` of its calls, and `per_second` beside them. Both are saved up, the former
// to at most kMaxEarned, the latter for kReserveTime, and the reserve is full at first. Thread-safe.
class RetryBudget {
 public:
  static constexpr double kMaxEarned = 1000;
  static constexpr absl::Duration kReserveTime = absl::Seconds(10);

  RetryBudget(double share, double per_second, std::function<absl::Time()> now = absl::Now);

  // A call was made (not a repeat).
  void Earn() ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes one repeat; false if there is none left.
  bool Spend() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const double share_, per_second_;
  const std::function<absl::Time()> now_;
  absl::Mutex mutex_;
  double earned_ ABSL_GUARDED_BY(mutex_) = 0;
  double reserve_ ABSL_GUARDED_BY(mutex_);
  absl::Time refilled_ ABSL_GUARDED_BY(mutex_);
};

// What the calls of one connection share. Thread-safe.
struct RetryPolicy {
  RetryPolicy(const RetryOptions& options, std::shared_ptr<grpc::Channel> channel)
      : options(options),
        budget(options.budget, options.reserve_per_second),
        channel(std::move(channel)),
        ever_connected_(options.wait_for_first_server) {}

  // A server was connected: from now on there is one to wait for. Before, unless wait_for_first_server, an address at
  // which nobody listens is an error at once.
  void NoteConnected() { ever_connected_.store(true, std::memory_order_relaxed); }
  bool ever_connected() const { return ever_connected_.load(std::memory_order_relaxed); }

  const RetryOptions options;
  RetryBudget budget;
  const std::shared_ptr<grpc::Channel> channel;

 private:
  std::atomic<bool> ever_connected_;
};

// The attempts of one call without lasting effect on the server. Not thread-safe. On a thread that may wait:
//   while (true) {
//     status = ...;
//     if (status.ok()) return tries.Answered();
//     if (auto end = tries.AwaitNext(status)) return *end;
//   }
class Tries {
 public:
  Tries(std::shared_ptr<RetryPolicy> policy, const CallOptions& options);

  // The attempt was answered.
  void Answered() { policy_->NoteConnected(); }

  // The attempt failed with `status`. Waits until it is time for another one, or returns the call's error. The three
  // below in one.
  std::optional<absl::Status> AwaitNext(const absl::Status& status);

  // The attempt failed with `status`. Whether that is worth another one: UNAVAILABLE, or CANCELLED that the caller did
  // not ask for, from a server that was connected once.
  bool Again(const absl::Status& status);

  // How long to wait before asking again; nullopt: go on now. Waits for the backoff, and then for as long as no server
  // is connected. A repeat while the connection is down would only fail, so that it is not spent.
  std::optional<absl::Duration> Wait();

  // After Wait: the time, the budget or the caller's patience has ended, so that the call ends with last().
  bool over() const { return over_; }
  const absl::Status& last() const { return last_; }

  // `status` with words on the attempts before it, if there were any.
  absl::Status Explain(const absl::Status& status) const;

 private:
  // Whether the call was refused, or its answer lost, so that it is worth sending again.
  bool Lost(const absl::Status& status) const;
  bool CallerGone() const { return cancellation_ != nullptr && cancellation_->cancelled(); }

  const std::shared_ptr<RetryPolicy> policy_;
  const std::shared_ptr<Cancellation> cancellation_;
  const absl::Time start_;
  const absl::Time end_;  // no attempt begins later
  absl::Duration backoff_;
  absl::Time next_ = absl::InfinitePast();  // the next attempt is not before
  int attempts_ = 0;
  bool over_ = false;
  const char* why_ = "";
  absl::Status last_;
};

// Waits on this thread for `time`, or until the channel's state changes, and lets gRPC connect meanwhile: where no call
// is open and no thread waits in gRPC, gRPC 1.51 looks at its sockets every five seconds only.
void Pause(grpc::Channel& channel, absl::Duration time);

// Waits, on this thread, until a server is connected, the call's time is over, or it is cancelled. For calls that are
// sent once because they have effects: what waits here has not been sent. Does nothing if repeats are off, or if nobody
// listens at an address that was never connected. Returns whether a server was connected.
bool WaitUntilConnected(RetryPolicy& policy, const CallOptions& options);

}  // namespace attnd::client
