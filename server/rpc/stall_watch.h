// Ends calls whose callers do not read their results, or do not finish sending their messages.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "server/rpc/counters.h"

namespace attnd::server {

// How long a message may take: `patience` plus a second for every `bytes_per_second` bytes.
struct StallLimit {
  absl::Duration patience = absl::InfiniteDuration();  // infinite: no limit
  std::int64_t bytes_per_second = 64 << 10;            // >= 1
};

// gRPC tells a writer when its message has passed the caller's flow control, and a reader when its message is complete,
// but never how far a message has come. So a call reports to the watch when a write or read begins and ends, and a
// thread cancels calls whose write or read takes too long: gRPC then ends their reads and writes, and their reactors
// free what they hold. A call is cancelled late by at most a quarter of `patience`, and by at most about a second.
//
// Thread-safe. Cheap enough for small calls: Begin and End each take a lock that is rarely contended, and Begin reads
// the clock.
class StallWatch {
 public:
  using Clock = std::chrono::steady_clock;
  // Receives a line for the log, at most once a second. Runs on the watch's thread.
  using Log = std::function<void(const std::string&)>;

  // A call's write or read, if one is under way. Its owner must not move it, and must End what it has begun.
  class Transfer {
   public:
    Transfer() = default;
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

   private:
    friend class StallWatch;
    StallWatch* watch = nullptr;  // whose lists contain this; null: none
    std::size_t shard = 0;
    Transfer* previous = nullptr;
    Transfer* next = nullptr;
    grpc_call* call = nullptr;
    bool is_read = false;
    std::int64_t bytes = 0;
    Clock::time_point begun, due;
  };

  // Borrows `counters`. With infinite patience there is no thread, and nothing is watched.
  StallWatch(const StallLimit& limit, Counters& counters, Log log);
  // No transfer may be under way.
  ~StallWatch();
  StallWatch(const StallWatch&) = delete;
  StallWatch& operator=(const StallWatch&) = delete;

  // `call` begins to write `bytes`. It must live until End. `transfer` must not be under way.
  void Begin(Transfer& transfer, grpc_call* call, std::int64_t bytes) { Begin(transfer, call, bytes, false); }
  // The same for reading a message of at most `most_bytes`.
  void BeginRead(Transfer& transfer, grpc_call* call, std::int64_t most_bytes) {
    Begin(transfer, call, most_bytes, true);
  }
  // The write, the read or the whole call is over. Does nothing if `transfer` was not under way, or was ended as
  // stalled. Afterwards the watch does not use the call.
  void End(Transfer& transfer);

  // For a stopping server: ends the calls whose reads began before `then` with UNAVAILABLE. These calls have not begun,
  // so they may be sent elsewhere.
  void EndReads(Clock::time_point then);

  bool watches() const { return watches_; }

 private:
  struct alignas(64) Shard {
    absl::Mutex mutex;
    Transfer first ABSL_GUARDED_BY(mutex);  // sentinel before the list's first element
  };
  struct Stalled {
    grpc_call* call = nullptr;  // with a reference
    bool is_read = false;
    std::int64_t bytes = 0;
  };

  void Begin(Transfer& transfer, grpc_call* call, std::int64_t bytes, bool is_read);
  void Run();
  // Removes the transfers for which `stalled` returns true, and returns them.
  std::vector<Stalled> Take(absl::FunctionRef<bool(const Transfer&)> stalled);
  void Cancel(const Stalled& stalled);
  Clock::duration Allowed(std::int64_t bytes) const;
  static void Unlink(Transfer& transfer);

  std::array<Shard, 16> shards_;
  const StallLimit limit_;
  const bool watches_;
  Counters& counters_;
  const Log log_;
  std::atomic<std::size_t> next_shard_{0};
  // Used by the thread only.
  Clock::time_point next_line_;
  std::int64_t unsaid_ = 0;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
