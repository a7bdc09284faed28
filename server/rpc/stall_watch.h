// Ends calls whose callers do not take their results, or do not send what they have begun.
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

// How long a message may take: `patience` and a second more for each `bytes_per_second` of it.
struct StallLimit {
  absl::Duration patience = absl::InfiniteDuration();  // infinite: as long as it likes
  std::int64_t bytes_per_second = 64 << 10;            // >= 1
};

// gRPC tells a writer when its message has passed the caller's flow control, and a reader when its message is whole,
// and never how far it has come. So whoever writes or reads tells this when it begins and when gRPC is done with it,
// and a thread looks at what has been under way for too long. That call is cancelled: gRPC then ends its reads and
// writes, and its reactor gives back all that it holds. The end comes a quarter of `patience` late at most, but no more
// than a second and a few milliseconds.
//
// Thread-safe. Cheap, since small calls come here too: beginning and ending take a lock each that hardly anybody else
// wants, and a look at the clock.
class StallWatch {
 public:
  using Clock = std::chrono::steady_clock;
  // Gets a line for the log, at most once a second. Runs on the thread of the watch.
  using Log = std::function<void(const std::string&)>;

  // One call's write or read, if one is under way. Its owner keeps it in place and ends what it has begun.
  class Transfer {
   public:
    Transfer() = default;
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

   private:
    friend class StallWatch;
    StallWatch* watch = nullptr;  // in one of whose lists this is
    std::size_t shard = 0;
    Transfer* previous = nullptr;
    Transfer* next = nullptr;
    grpc_call* call = nullptr;
    bool is_read = false;
    std::int64_t bytes = 0;
    Clock::time_point begun, due;
  };

  // Borrows `counters`. Without patience there is no thread, and nothing is watched.
  StallWatch(const StallLimit& limit, Counters& counters, Log log);
  // Nothing may be under way.
  ~StallWatch();
  StallWatch(const StallWatch&) = delete;
  StallWatch& operator=(const StallWatch&) = delete;

  // `call` begins to write `bytes`. It must live until End. `transfer` is not under way.
  void Begin(Transfer& transfer, grpc_call* call, std::int64_t bytes) { Begin(transfer, call, bytes, false); }
  // The same for a read, of a message that has `most_bytes` at most.
  void BeginRead(Transfer& transfer, grpc_call* call, std::int64_t most_bytes) {
    Begin(transfer, call, most_bytes, true);
  }
  // The write or read is over, or the call is. Nothing happens if it was not under way, or has been ended as stalled.
  // After this the watch knows nothing of the call.
  void End(Transfer& transfer);

  // For a server that stops: ends the calls whose reads have begun before `then`, with UNAVAILABLE. They were not begun
  // themselves.
  void EndReads(Clock::time_point then);

  bool watches() const { return watches_; }

 private:
  struct alignas(64) Shard {
    absl::Mutex mutex;
    Transfer first ABSL_GUARDED_BY(mutex);  // before the first of the list
  };
  struct Stalled {
    grpc_call* call = nullptr;  // with a reference
    bool is_read = false;
    std::int64_t bytes = 0;
  };

  void Begin(Transfer& transfer, grpc_call* call, std::int64_t bytes, bool is_read);
  void Run();
  // Those that `stalled` picks out.
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
  // Of the thread.
  Clock::time_point next_line_;
  std::int64_t unsaid_ = 0;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
