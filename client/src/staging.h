// Shared memory for one call: where its tensors are, or where they are copied to.
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

// Keeps regions for reuse, since a new one costs its pages and a message to the server: at most kMaxIdleBytes, those
// used last, and none that has been idle for longer than kMaxIdleTime when the next one is taken or given. Thread-safe.
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
  // At least `size` bytes; nullopt if there is no memory.
  std::optional<Block> Get(std::size_t size) ABSL_LOCKS_EXCLUDED(mutex_);
  // For a block that neither side uses any more.
  void Put(Block block) ABSL_LOCKS_EXCLUDED(mutex_);

  std::size_t idle_bytes() ABSL_LOCKS_EXCLUDED(mutex_);
  // How much was copied to and from blocks, in all.
  std::int64_t copied_bytes() const { return copied_bytes_.load(std::memory_order_relaxed); }
  void NoteCopied(std::int64_t bytes) { copied_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  SharedMemory& memory() { return *memory_; }

 private:
  struct Idle {
    Block block;
    absl::Time since;
  };

  // Takes out of the pool the blocks to be freed: those idle for too long, and the oldest ones beyond kMaxIdleBytes.
  std::vector<Block> TakeSurplus() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<SharedMemory> memory_;
  const std::function<absl::Time()> now_;
  absl::Mutex mutex_;
  std::list<Idle> idle_ ABSL_GUARDED_BY(mutex_);  // oldest first
  std::size_t idle_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<std::int64_t> copied_bytes_{0};
};

// One call's way through shared memory.
class Staged {
 public:
  // By gRPC the log-sum-exp, which is small, is always sent.
  enum class Way : std::uint8_t { kGrpc, kLocal };

  // Finds q, k, v and the output's destination in shared memory, and copies what is not there to the pool's. nullopt if
  // the server shares no memory, it would not pay, or the server has not answered by `deadline`. Waits for the server.
  static std::optional<Staged> MakeNow(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                       const Shape& shape, absl::Time deadline);

  // The same without waiting: calls `made` once, on this thread if the server knows all regions already, otherwise on
  // one of AsyncRuntime. `request` must stay until then.
  static void MakeLater(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                        absl::Time deadline, std::function<void(std::optional<Staged>)> made);

  // For a call over the local socket: as MakeNow, but for the log-sum-exp, which is found or given room as the output
  // is. What is not in shared memory in the end, because it is small or there is none, is to be sent. `pool` may be
  // null.
  static Staged MakeLocal(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                          absl::Time deadline);

  // The same without waiting: as MakeLater.
  static void MakeLocalLater(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                             const Shape& shape, absl::Time deadline, std::function<void(Staged)> made);

  const WireFields& fields() const { return fields_; }

  // Whether anything of the call is in shared memory.
  bool any() const { return fields_.q || fields_.k || fields_.v || fields_.output || fields_.log_sum_exp; }

  // Whether Finish copies results.
  bool copies() const { return output_ != nullptr || log_sum_exp_ != nullptr; }

  // After the call: puts the output where the request wants it. Memory goes back to the pool only after a call that
  // succeeded: otherwise the server may still be using it.
  absl::StatusOr<ComputeReply> Finish(absl::StatusOr<ComputeReply> reply, const ComputeRequest& request,
                                      const Shape& shape) &&;

  // Instead of Finish, if nothing was sent.
  void Unused() &&;

 private:
  Staged() = default;
  // MakeNow and MakeLater in two steps, each after it is settled which of these regions the server shares: those of the
  // caller, and then that of the block, if there is one.
  static std::vector<SharedMemory::Range> CallersRanges(const ComputeRequest& request, const Shape& shape);
  static std::optional<Staged> Begin(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                     const Shape& shape);
  std::vector<SharedMemory::Range> BlocksRange() const;
  static std::optional<Staged> Copy(Staged staged, const ComputeRequest& request, const Shape& shape, Way way);
  // MakeLocalLater's second half, once it is settled which of the caller's regions the server shares.
  static void CopyLocalLater(Staged staged, const ComputeRequest& request, const Shape& shape, absl::Time deadline,
                             std::function<void(Staged)> made);
  // Finds what is in shared memory; returns what a block would have to hold. `unsettled`: it is not known of all that
  // is in the caller's whether the server shares it.
  std::size_t Find(const ComputeRequest& request, const Shape& shape, Way way, bool& unsettled);

  std::shared_ptr<StagingPool> pool_;
  WireFields fields_;
  std::optional<StagingPool::Block> block_;
  // In the block; null if the server wrote to the destination itself, or sent them.
  const unsigned char* output_ = nullptr;
  const unsigned char* log_sum_exp_ = nullptr;
};

}  // namespace attnd::client
