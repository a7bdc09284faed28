// Finds a call's tensors in shared memory, or copies them there.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "client/src/shape.h"
#include "client/src/shared_memory.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Keeps blocks of shared memory for reuse, since a new one costs page faults and a message to the server. Keeps the
// most recently used, at most kMaxIdleBytes. Get and Put free the blocks that have been idle for longer than
// kMaxIdleTime. Thread-safe.
class StagingPool {
 public:
  static constexpr std::size_t kMaxIdleBytes = std::size_t{256} << 20;
  static constexpr absl::Duration kMaxIdleTime = absl::Seconds(10);

  explicit StagingPool(std::shared_ptr<SharedMemory> memory, std::function<absl::Time()> now = absl::Now)
      : memory_(std::move(memory)), now_(std::move(now)) {}

  struct Block {
    std::shared_ptr<void> data;
    std::size_t size;
  };
  // A block of at least `size` bytes; nullopt if there is no memory.
  std::optional<Block> Get(std::size_t size) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes back a block that neither client nor server uses any more.
  void Put(Block block) ABSL_LOCKS_EXCLUDED(mutex_);

  std::size_t idle_bytes() ABSL_LOCKS_EXCLUDED(mutex_);
  // Total bytes copied to and from blocks.
  std::int64_t copied_bytes() const { return copied_bytes_.load(std::memory_order_relaxed); }
  void NoteCopied(std::int64_t bytes) { copied_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  SharedMemory& memory() { return *memory_; }

 private:
  struct Idle {
    Block block;
    absl::Time since;
  };

  // Removes and returns the blocks to be freed: those idle for too long, and the oldest ones beyond kMaxIdleBytes.
  std::vector<Block> TakeSurplus() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<SharedMemory> memory_;
  const std::function<absl::Time()> now_;
  absl::Mutex mutex_;
  std::list<Idle> idle_ ABSL_GUARDED_BY(mutex_);  // oldest first
  std::size_t idle_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<std::int64_t> copied_bytes_{0};
};

// The shared memory of one call.
class Staged {
 public:
  // The transport of the call. Over gRPC the log-sum-exp, which is small, is always sent in the message.
  enum class Way : std::uint8_t { kGrpc, kLocal };

  // Finds q, k, v and the output's destination in shared memory, and uses a block of the pool for those that are not
  // there. Returns nullopt if the server shares no memory or has not answered by `deadline`, if the pool has no memory,
  // or if so little would be copied that sending it is as fast. Waits for the server.
  static std::optional<Staged> MakeNow(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                       const Shape& shape, absl::Time deadline);

  // As MakeNow, without waiting: calls `made` once, on this thread if the server's answers for all regions are known,
  // otherwise on a thread of AsyncRuntime. `request` must stay valid until then.
  static void MakeLater(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                        absl::Time deadline, std::function<void(std::optional<Staged>)> made);

  // As MakeNow, for a call over the local socket. Also places the log-sum-exp in shared memory. What `fields` does not
  // place there in the end, because it is small or there is no memory, has to be sent. `pool` may be null.
  static Staged MakeLocal(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                          absl::Time deadline);

  // As MakeLocal, without waiting; see MakeLater.
  static void MakeLocalLater(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                             const Shape& shape, absl::Time deadline, std::function<void(Staged)> made);

  const WireFields& fields() const { return fields_; }

  // Whether anything of the call is in shared memory.
  bool any() const { return fields_.q || fields_.k || fields_.v || fields_.output || fields_.log_sum_exp; }

  // Whether Finish copies results.
  bool copies() const { return output_ != nullptr || log_sum_exp_ != nullptr; }

  // Call this after the call: copies results to the request's destinations. Memory returns to the pool only if the call
  // succeeded; otherwise the server may still be using it.
  absl::StatusOr<ComputeReply> Finish(absl::StatusOr<ComputeReply> reply, const ComputeRequest& request,
                                      const Shape& shape) &&;

  // Call this instead of Finish if nothing was sent.
  void Unused() &&;

 private:
  Staged() = default;
  // The steps of MakeNow and MakeLater. Begin runs once it is known which of CallersRanges the server shares; Copy runs
  // once the same is known for BlocksRange.
  static std::vector<SharedMemory::Range> CallersRanges(const ComputeRequest& request, const Shape& shape);
  static std::optional<Staged> Begin(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                     const Shape& shape);
  std::vector<SharedMemory::Range> BlocksRange() const;
  static std::optional<Staged> Copy(Staged staged, const ComputeRequest& request, const Shape& shape, Way way);
  // MakeLocalLater's second half, once it is known which of the caller's regions the server shares.
  static void CopyLocalLater(Staged staged, const ComputeRequest& request, const Shape& shape, absl::Time deadline,
                             std::function<void(Staged)> made);
  // Finds the tensors that are in shared memory; returns the size of a block for the others. Sets `unsettled` if it is
  // not known for one of the caller's regions whether the server shares it.
  std::size_t Find(const ComputeRequest& request, const Shape& shape, Way way, bool& unsettled);

  std::shared_ptr<StagingPool> pool_;
  WireFields fields_;
  std::optional<StagingPool::Block> block_;
  // The results in the block; null if the server wrote to the destination or sent them.
  const unsigned char* output_ = nullptr;
  const unsigned char* log_sum_exp_ = nullptr;
};

}  // namespace attnd::client
