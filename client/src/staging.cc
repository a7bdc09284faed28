#include "client/src/staging.h"

#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attnd::client {
namespace {

// Below this tensors are sent, not copied to shared memory. At 8 KiB in all both took the same time and at 1 MiB
// copying took 0.6 of it (docs/performance.md, "Calls"); where between the two they part was not
// measured.
constexpr std::int64_t kMinCopyBytes = std::int64_t{16} << 10;

constexpr std::size_t kAlignment = 64;

std::size_t Aligned(std::int64_t bytes) {
  return (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::optional<StagingPool::Block> StagingPool::Get(std::size_t size) {
  std::vector<Block> surplus;  // freed outside the lock: to free a region costs a message to the server
  {
    absl::MutexLock lock(&mutex_);
    surplus = TakeSurplus();
    // The smallest that fits and is not twice too large; of equals the one used last.
    auto best = idle_.end();
    for (auto at = idle_.begin(); at != idle_.end(); ++at) {
      const std::size_t offered = at->block.size;
      if (offered >= size && offered / 2 <= size && (best == idle_.end() || offered <= best->block.size)) best = at;
    }
    if (best != idle_.end()) {
      Block block = std::move(best->block);
      idle_bytes_ -= block.size;
      idle_.erase(best);
      return block;
    }
  }
  absl::StatusOr<std::shared_ptr<void>> data = memory_->Allocate(size, SharedMemory::Pages::kSmall);
  if (!data.ok()) return std::nullopt;
  return Block{*std::move(data), size};
}

void StagingPool::Put(Block block) {
  if (block.size > kMaxIdleBytes) return;
  std::vector<Block> surplus;  // freed outside the lock
  absl::MutexLock lock(&mutex_);
  idle_bytes_ += block.size;
  idle_.push_back({std::move(block), now_()});
  surplus = TakeSurplus();
}

std::vector<StagingPool::Block> StagingPool::TakeSurplus() {
  std::vector<Block> surplus;
  const absl::Time oldest = now_() - kMaxIdleTime;
  while (!idle_.empty() && (idle_bytes_ > kMaxIdleBytes || idle_.front().since < oldest)) {
    idle_bytes_ -= idle_.front().block.size;
    surplus.push_back(std::move(idle_.front().block));
    idle_.pop_front();
  }
  return surplus;
}

std::size_t StagingPool::idle_bytes() {
  absl::MutexLock lock(&mutex_);
  return idle_bytes_;
}

std::optional<Staged> Staged::Make(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                   const Shape& shape) {
  if (pool == nullptr || !pool->memory().Offered()) return std::nullopt;
  Staged staged;
  staged.pool_ = pool;
  struct Part {
    const void* data;
    std::int64_t bytes;
    std::optional<SharedPlace>* place;
    bool input;
  };
  Part parts[] = {{request.q.data, shape.q_bytes, &staged.fields_.q, true},
                  {request.k.data, shape.k_bytes, &staged.fields_.k, true},
                  {request.v.data, shape.v_bytes, &staged.fields_.v, true},
                  {request.output.data, shape.output_bytes, &staged.fields_.output, false}};
  std::size_t to_copy = 0;
  for (const Part& part : parts) {
    if (part.data != nullptr) *part.place = pool->memory().Find(part.data, static_cast<std::size_t>(part.bytes));
    if (!part.place->has_value()) to_copy += Aligned(part.bytes);
  }
  if (to_copy == 0) return staged;
  if (to_copy < static_cast<std::size_t>(kMinCopyBytes)) {
    // Small tensors are sent beside large ones that are shared.
    const bool any = staged.fields_.q || staged.fields_.k || staged.fields_.v || staged.fields_.output;
    return any ? std::optional<Staged>(std::move(staged)) : std::nullopt;
  }
  staged.block_ = pool->Get(to_copy);
  if (!staged.block_.has_value()) return std::nullopt;
  auto* at = static_cast<unsigned char*>(staged.block_->data.get());
  for (const Part& part : parts) {
    if (part.place->has_value()) continue;
    *part.place = pool->memory().Find(at, static_cast<std::size_t>(part.bytes));
    if (!part.place->has_value()) return std::nullopt;  // the server does not take this region
    if (part.input) {
      std::memcpy(at, part.data, static_cast<std::size_t>(part.bytes));
    } else {
      staged.output_ = at;
    }
    at += Aligned(part.bytes);
  }
  return staged;
}

absl::StatusOr<ComputeReply> Staged::Finish(absl::StatusOr<ComputeReply> reply, const ComputeRequest& request,
                                            const Shape& shape) && {
  if (!reply.ok() || !block_.has_value()) return reply;
  const auto size = static_cast<std::size_t>(shape.output_bytes);
  if (output_ != nullptr && request.output.data != nullptr) {
    std::memcpy(request.output.data, output_, size);
  } else if (output_ != nullptr) {
    std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[size]);
    if (memory == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
    }
    std::memcpy(memory.get(), output_, size);
    reply->output = Tensor(shape.output_dtype, shape.output_sizes, Tensor::Segment(memory.get(), size), memory);
  }
  pool_->Put(*std::move(block_));
  return reply;
}

}  // namespace attnd::client
