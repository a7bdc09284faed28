// Retries calls that the server refused or lost, within a budget.
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

// The number of retries that a client may send: `share` for each call, and `per_second` in addition. Both are saved up:
// the former to at most kMaxEarned, the latter for kReserveTime; the reserve is full at first. Thread-safe.
class RetryBudget {
 public:
  static constexpr double kMaxEarned = 1000;
  static constexpr absl::Duration kReserveTime = absl::Seconds(10);

  RetryBudget(double share, double per_second, std::function<absl::Time()> now = absl::Now);

  // Counts a call (not a retry).
  void Earn() ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes one retry; false if none is left.
  bool Spend() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const double share_, per_second_;
  const std::function<absl::Time()> now_;
  absl::Mutex mutex_;
  double earned_ ABSL_GUARDED_BY(mutex_) = 0;
  double reserve_ ABSL_GUARDED_BY(mutex_);
  absl::Time refilled_ ABSL_GUARDED_BY(mutex_);
};

// State shared by all calls of one connection. Thread-safe.
struct RetryPolicy {
  RetryPolicy(const RetryOptions& options, std::shared_ptr<grpc::Channel> channel,
              std::function<absl::Time()> now = absl::Now)
      : options(options),
        budget(options.budget, options.reserve_per_second, now),
        channel(std::move(channel)),
        now(std::move(now)),
        ever_connected_(options.wait_for_first_server) {}

  // Records that a server was connected, so that calls wait for one from now on. Before that, unless
  // wait_for_first_server, an address on which nothing listens is an error at once.
  void NoteConnected() { ever_connected_.store(true, std::memory_order_relaxed); }
  bool ever_connected() const { return ever_connected_.load(std::memory_order_relaxed); }

  const RetryOptions options;
  RetryBudget budget;
  const std::shared_ptr<grpc::Channel> channel;
  const std::function<absl::Time()> now;  // for Tries

 private:
  std::atomic<bool> ever_connected_;
};

// The attempts of one call that may be retried. Not thread-safe. On a thread that may wait:
//
//   while (true) {
//     status = ...;
//     if (status.ok()) return tries.Answered();
//     if (auto end = tries.AwaitNext(status)) return *end;
//   }
class Tries {
 public:
  Tries(std::shared_ptr<RetryPolicy> policy, const CallOptions& options);

  // The attempt succeeded.
  void Answered() { policy_->NoteConnected(); }

  // The attempt failed with `status`. Waits until it is time for the next one and returns nullopt, or returns the
  // call's error. Combines Again, Wait and Explain.
  std::optional<absl::Status> AwaitNext(const absl::Status& status);

  // The attempt failed with `status`. Returns whether to retry: the status is UNAVAILABLE, CANCELLED that the caller
  // did not request, or gRPC's UNKNOWN "Stream removed", retries are on, and a server was connected before.
  bool Again(const absl::Status& status);

  // How long to wait before calling Wait again; nullopt: continue now. Waits for the backoff, and then until a server
  // is connected: a retry while the connection is down would only fail and use up the budget.
  std::optional<absl::Duration> Wait();

  // After Wait: true if the call ends with last(), because its time or the budget is used up or the caller cancelled
  // it.
  bool over() const { return over_; }
  const absl::Status& last() const { return last_; }

  // `status` with a description of the earlier attempts in its message, if there were any.
  absl::Status Explain(const absl::Status& status) const;

 private:
  // Whether `status` means that the call was refused or its reply lost.
  bool Lost(const absl::Status& status) const;
  bool CallerGone() const { return cancellation_ != nullptr && cancellation_->cancelled(); }

  const std::shared_ptr<RetryPolicy> policy_;
  const std::shared_ptr<Cancellation> cancellation_;
  const absl::Time start_;
  const absl::Time end_;  // no attempt begins later
  absl::Duration backoff_;
  absl::Time next_ = absl::InfinitePast();  // earliest time of the next attempt
  int attempts_ = 0;
  bool over_ = false;
  const char* why_ = "";
  absl::Status last_;
};

// Waits on this thread for `time`, or until the channel's state changes. Lets gRPC connect meanwhile: if no call is
// open and no thread waits in gRPC, gRPC 1.51 polls its sockets only every five seconds.
void Pause(grpc::Channel& channel, absl::Duration time);

// Waits on this thread until a server is connected, the call's time is over, or it is cancelled. For calls that are
// sent once because they have effects: a call that waits here has not been sent. Does not wait if retries are off, or
// if nothing listens on an address that was never connected. Returns whether a server is connected.
bool WaitUntilConnected(RetryPolicy& policy, const CallOptions& options);

}  // namespace attnd::client
