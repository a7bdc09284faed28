// Asynchronous calls over a server's local socket: many at once on one connection.
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

// Connects on first use, and again after the connection is lost. One thread reads the replies and runs the callbacks;
// it starts on first use and ends soon after Stop. No method blocks. Thread-safe.
class LocalMux : public std::enable_shared_from_this<LocalMux> {
 public:
  using Clock = std::chrono::steady_clock;

  // As in LocalCalls.
  static constexpr Clock::duration kPatience = std::chrono::seconds(1);
  static constexpr Clock::duration kRest = std::chrono::seconds(1);
  static constexpr Clock::duration kRestAfterRefusal = std::chrono::seconds(10);

  // The server's socket is at `path`.
  LocalMux(std::string path, const std::string& user_agent, const Keepalive& keepalive);

  // `target` is a gRPC target; returns null if it is not the path of a Unix socket.
  static std::shared_ptr<LocalMux> ForTarget(const std::string& target, const std::string& user_agent,
                                             const Keepalive& keepalive);

  // Returns true if it is known whether the server accepts calls. Otherwise connects and calls `settled` once, on the
  // thread, when it is known; at the latest at `deadline` and after kPatience.
  bool Settle(absl::Time deadline, std::function<void()> settled) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the server is known to accept calls now.
  bool Offered() ABSL_LOCKS_EXCLUDED(mutex_);

  // kNoRoom: the call is too large, or the server's maximum of calls is under way. kBroken: the connection is closed; a
  // retry may connect again.
  enum class Started : std::uint8_t { kYes, kNoRoom, kBroken };

  // Sends a call. `request` and the memory it refers to must stay valid until `done` is called: once, on the thread.
  // Unless this returns kYes, nothing was sent and `done` is not called.
  Started Start(const ComputeRequest& request, const Shape& shape, const WireFields& fields, const CallOptions& options,
                ComputeCallback done) ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the connection and the thread. No call may be under way.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Call {
    const ComputeRequest* request;
    Shape shape;
    WireFields fields;
    ComputeCallback done;
    std::shared_ptr<Cancellation> cancellation;
    std::int64_t cancel_id = -1;  // id in `cancellation`
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
  // Start's second half: sends `message` and registers the call.
  Started Begin(std::uint64_t id, LocalMessage& message, CallPtr call) ABSL_LOCKS_EXCLUDED(mutex_);
  void Cancel(std::uint64_t id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends a call before its reply with `status`, and tells the server. Its id stays in use until the reply comes.
  void EndEarly(std::uint64_t id, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sends `bytes`, or queues them in outbox_ if the socket has no room. Returns false if the connection has ended.
  bool Send(std::string bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Complete(CallPtr call, absl::StatusOr<ComputeReply> reply);

  // The following functions run on the thread.
  void Run();
  void Step() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Expire(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookForLife(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the connection, and its calls with `status`.
  void Drop(const absl::Status& status, Clock::duration rest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Receives and completes what has arrived.
  void Receive() ABSL_LOCKS_EXCLUDED(mutex_);
  // Handles a datagram. Returns the call that it answers, or null.
  CallPtr Take(absl::Span<const unsigned char> datagram, std::optional<LocalAnswer>& answer)
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<std::function<void()>> TakeSettled(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Clock::time_point NextTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  bool Resting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return Clock::now() < next_attempt_; }
  // The error of calls whose connection broke before their reply.
  absl::Status Lost(absl::string_view why) const;

  const std::string path_, hello_;
  const Keepalive keepalive_;
  std::atomic<std::uint64_t> next_id_{1};
  std::vector<unsigned char> buffer_;  // used by the thread alone
  absl::Mutex mutex_;
  WakingThread thread_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;   // the thread has to close the socket
  shm::UniqueFd socket_ ABSL_GUARDED_BY(mutex_);  // closed only by the thread, which polls it
  State state_ ABSL_GUARDED_BY(mutex_) = State::kApart;
  LocalOffer offer_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point greeted_by_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point next_attempt_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  // Calls under way at the server, by id. Null: the call has ended here, but its reply has not come.
  std::unordered_map<std::uint64_t, CallPtr> calls_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<Clock::time_point, std::uint64_t>> deadlines_ ABSL_GUARDED_BY(mutex_);
  std::vector<Ended> ended_ ABSL_GUARDED_BY(mutex_);        // the thread has to complete these
  std::deque<std::string> outbox_ ABSL_GUARDED_BY(mutex_);  // waits for room in the socket
  // When the thread's poll times out.
  Clock::time_point wakes_at_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::min();
  // When something last arrived or the first call began; if asked_for_life_, when the server was pinged.
  Clock::time_point silent_since_ ABSL_GUARDED_BY(mutex_);
  bool asked_for_life_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace attnd::client
