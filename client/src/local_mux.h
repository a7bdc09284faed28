// Calls over a server's local socket that no thread waits for: many at once on one connection.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attnd/attention.h"
#include "attnd/connection.h"
#include "attnd/options.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/keepalive.h"
#include "client/src/local_messages.h"
#include "client/src/shape.h"
#include "client/src/waking_thread.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Connects when it is first asked, and again after the connection was lost. One thread reads the answers, and runs what
// is to be done with them; it starts with the first use and ends soon after Stop. No method blocks. Thread-safe.
class LocalMux : public std::enable_shared_from_this<LocalMux> {
 public:
  using Clock = std::chrono::steady_clock;

  // As LocalCalls'.
  static constexpr Clock::duration kPatience = std::chrono::seconds(1);
  static constexpr Clock::duration kRest = std::chrono::seconds(1);
  static constexpr Clock::duration kRestAfterRefusal = std::chrono::seconds(10);

  // The server's socket is at `path`.
  LocalMux(std::string path, const std::string& user_agent, const Keepalive& keepalive);

  // `target` is a gRPC name; null if it is no path of a Unix socket.
  static std::shared_ptr<LocalMux> ForTarget(const std::string& target, const std::string& user_agent,
                                             const Keepalive& keepalive);

  // True if it is known whether the server takes calls. Otherwise connects and calls `settled` once, on the thread,
  // when it is known: at the latest at `deadline`, and after kPatience.
  bool Settle(absl::Time deadline, std::function<void()> settled) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the server is known to take calls now.
  bool Offered() ABSL_LOCKS_EXCLUDED(mutex_);

  // kNoRoom: it is too large, or as many calls as the server takes are under way. kBroken: the connection was found
  // closed, and another may be had.
  enum class Started : std::uint8_t { kYes, kNoRoom, kBroken };

  // Sends a call of `request`, whose memory must stay until `done` is called: once, on the thread. If it is not started
  // `done` is not called, and the call is to be made another way.
  Started Start(const ComputeRequest& request, const Shape& shape, const WireFields& fields, const CallOptions& options,
                ComputeCallback done) ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the connection and the thread. There must be no call under way.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Call {
    const ComputeRequest* request;
    Shape shape;
    WireFields fields;
    ComputeCallback done;
    std::shared_ptr<Cancellation> cancellation;
    std::int64_t cancel_id = -1;  // at the cancellation
    Clock::time_point deadline;
  };
  using CallPtr = std::unique_ptr<Call>;
  struct Waiter {
    Clock::time_point deadline;
    std::function<void()> settled;
  };
  struct Ended {
    CallPtr call;
    absl::Status status;
  };
  enum class State : std::uint8_t { kApart, kGreeting, kOpen };

  bool HasThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsSettled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Start's second half: sends what is said.
  Started Begin(std::uint64_t id, LocalMessage& message, CallPtr call) ABSL_LOCKS_EXCLUDED(mutex_);
  void Cancel(std::uint64_t id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes a call that ends before its answer; its id stays in use until that comes.
  void EndEarly(std::uint64_t id, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sends, or keeps what has no room; false if the connection has ended.
  bool Send(std::string bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Complete(CallPtr call, absl::StatusOr<ComputeReply> reply);

  // What follows runs on the thread.
  void Run();
  void Step() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Expire(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookForLife(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the connection, and its calls with `status`.
  void Drop(const absl::Status& status, Clock::duration rest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Receives what has come.
  void Receive() ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes a datagram; the call that it answers, or null.
  CallPtr Take(absl::Span<const unsigned char> datagram, std::optional<LocalAnswer>& answer)
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<std::function<void()>> TakeSettled(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Clock::time_point NextTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  bool Resting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return Clock::now() < next_attempt_; }
  // What a call ends with whose connection broke before its answer.
  absl::Status Lost(absl::string_view why) const;

  const std::string path_, hello_;
  const Keepalive keepalive_;
  std::atomic<std::uint64_t> next_id_{1};
  std::vector<unsigned char> buffer_;  // of the thread
  absl::Mutex mutex_;
  WakingThread thread_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;   // the thread is to close the socket
  shm::UniqueFd socket_ ABSL_GUARDED_BY(mutex_);  // closed by the thread alone, which polls it
  State state_ ABSL_GUARDED_BY(mutex_) = State::kApart;
  LocalOffer offer_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point greeted_by_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point next_attempt_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  // Under way at the server. Those that have ended here are null, until their answer comes.
  std::unordered_map<std::uint64_t, CallPtr> calls_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<Clock::time_point, std::uint64_t>> deadlines_ ABSL_GUARDED_BY(mutex_);
  std::vector<Ended> ended_ ABSL_GUARDED_BY(mutex_);        // to be completed by the thread
  std::deque<std::string> outbox_ ABSL_GUARDED_BY(mutex_);  // has no room at the socket yet
  // When the thread wakes by itself.
  Clock::time_point wakes_at_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
  // The server has been silent since, or was asked for a sign of life then.
  Clock::time_point silent_since_ ABSL_GUARDED_BY(mutex_);
  bool asked_for_life_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace attnd::client
