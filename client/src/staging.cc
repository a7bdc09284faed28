#include "client/src/staging.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/async_runtime.h"

namespace attnd::client {
namespace {

// Tensors below this total are sent, not copied to shared memory. Over gRPC both took the same time at 8 KiB in total,
// and copying took 0.6 of it at 1 MiB (docs/performance.md, "Calls"). Over the local socket both take the same from 8
// to 48 KiB (docs/performance.md, "Local calls"), and a datagram has no room for much more.
constexpr std::int64_t kMinCopyBytes = std::int64_t{16} << 10;

constexpr std::size_t kAlignment = 64;

std::size_t Aligned(std::int64_t bytes) {
  return (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
}

// A tensor of a call, and its place in shared memory.
struct Part {
  const void* data;
  std::int64_t bytes;
  std::optional<SharedPlace>* place;
  bool input;
  std::size_t alignment;
};

std::vector<Part> Parts(const ComputeRequest& request, const Shape& shape, WireFields& fields, Staged::Way way) {
  std::vector<Part> parts = {{request.q.data, shape.q_bytes, &fields.q, true, 1},
                             {request.k.data, shape.k_bytes, &fields.k, true, 1},
                             {request.v.data, shape.v_bytes, &fields.v, true, 1},
                             {request.output.data, shape.output_bytes, &fields.output, false, 1}};
  if (way == Staged::Way::kLocal && request.return_log_sum_exp) {
    parts.push_back({request.log_sum_exp.data, shape.log_sum_exp_bytes, &fields.log_sum_exp, false, sizeof(float)});
  }
  return parts;
}

}  // namespace

std::optional<StagingPool::Block> StagingPool::Get(std::size_t size) {
  std::vector<Block> surplus;  // freed outside the lock: unmapping a region takes long
  {
    absl::MutexLock lock(&mutex_);
    surplus = TakeSurplus();
    // The smallest block that fits and is at most twice as large as needed; of equal sizes, the most recently used.
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

std::vector<SharedMemory::Range> Staged::CallersRanges(const ComputeRequest& request, const Shape& shape) {
  WireFields none;
  std::vector<SharedMemory::Range> ranges;
  for (const Part& part : Parts(request, shape, none, Way::kLocal)) {
    if (part.data != nullptr) ranges.push_back({part.data, static_cast<std::size_t>(part.bytes)});
  }
  return ranges;
}

std::vector<SharedMemory::Range> Staged::BlocksRange() const {
  if (!block_.has_value()) return {};
  return {{block_->data.get(), block_->size}};
}

std::optional<Staged> Staged::Begin(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                    const Shape& shape) {
  if (!pool->memory().Offered()) return std::nullopt;
  Staged staged;
  staged.pool_ = pool;
  bool unsettled = false;  // everything is settled: a region that is not found was refused
  const std::size_t to_copy = staged.Find(request, shape, Way::kGrpc, unsettled);
  if (to_copy == 0) return staged;
  if (to_copy < static_cast<std::size_t>(kMinCopyBytes)) {
    // Small tensors are sent in the message although large ones are in shared memory.
    return staged.any() ? std::optional<Staged>(std::move(staged)) : std::nullopt;
  }
  staged.block_ = pool->Get(to_copy);
  if (!staged.block_.has_value()) return std::nullopt;
  return staged;
}

std::optional<Staged> Staged::Copy(Staged staged, const ComputeRequest& request, const Shape& shape, Way way) {
  if (!staged.block_.has_value()) return staged;
  auto* at = static_cast<unsigned char*>(staged.block_->data.get());
  for (const Part& part : Parts(request, shape, staged.fields_, way)) {
    if (part.place->has_value()) continue;
    const auto bytes = static_cast<std::size_t>(part.bytes);
    *part.place = staged.pool_->memory().Find({at, bytes});
    if (!part.place->has_value()) return std::nullopt;  // the server does not share this region
    if (part.input) {
      std::memcpy(at, part.data, bytes);
      staged.pool_->NoteCopied(part.bytes);
    } else {
      (part.place == &staged.fields_.output ? staged.output_ : staged.log_sum_exp_) = at;
    }
    at += Aligned(part.bytes);
  }
  return staged;
}

std::size_t Staged::Find(const ComputeRequest& request, const Shape& shape, Way way, bool& unsettled) {
  SharedMemory& memory = pool_->memory();
  std::size_t missing = 0;
  for (const Part& part : Parts(request, shape, fields_, way)) {
    const SharedMemory::Range range{part.data, static_cast<std::size_t>(part.bytes)};
    if (part.data != nullptr && reinterpret_cast<std::uintptr_t>(part.data) % part.alignment == 0) {
      *part.place = memory.Find(range);
      unsettled |= !part.place->has_value() && memory.Owns(range);
    }
    if (!part.place->has_value()) missing += Aligned(part.bytes);
  }
  return missing;
}

Staged Staged::MakeLocal(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                         absl::Time deadline) {
  Staged staged;
  if (pool == nullptr) return staged;
  staged.pool_ = pool;
  bool unsettled = false;
  std::size_t missing = staged.Find(request, shape, Way::kLocal, unsettled);
  if (unsettled) {
    // Find does not find regions that the server refuses.
    pool->memory().SettleNow(CallersRanges(request, shape), deadline);
    missing = staged.Find(request, shape, Way::kLocal, unsettled);
  }
  if (missing < static_cast<std::size_t>(kMinCopyBytes)) return staged;
  Staged sent = staged;  // without a block
  staged.block_ = pool->Get(missing);
  if (!staged.block_.has_value()) return sent;
  if (!pool->memory().Find(staged.BlocksRange().front()).has_value()) {
    pool->memory().SettleNow(staged.BlocksRange(), deadline);
  }
  return Copy(std::move(staged), request, shape, Way::kLocal).value_or(std::move(sent));
}

void Staged::MakeLocalLater(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                            absl::Time deadline, std::function<void(Staged)> made) {
  Staged staged;
  if (pool == nullptr) return made(std::move(staged));
  staged.pool_ = pool;
  bool unsettled = false;
  staged.Find(request, shape, Way::kLocal, unsettled);
  const auto copy = [staged, &request, shape, deadline, made = std::move(made)] {
    CopyLocalLater(staged, request, shape, deadline, made);
  };
  // Tensors are copied on a thread of the runtime, so that SharedMemory's thread is not held up.
  if (!unsettled ||
      pool->memory().Settle(CallersRanges(request, shape), deadline, [copy] { AsyncRuntime::Get().Post(copy); })) {
    copy();
  }
}

void Staged::CopyLocalLater(Staged staged, const ComputeRequest& request, const Shape& shape, absl::Time deadline,
                            std::function<void(Staged)> made) {
  bool unsettled = false;
  const std::size_t missing = staged.Find(request, shape, Way::kLocal, unsettled);
  if (missing < static_cast<std::size_t>(kMinCopyBytes)) return made(std::move(staged));
  const auto sent = std::make_shared<Staged>(staged);  // without a block
  staged.block_ = staged.pool_->Get(missing);
  if (!staged.block_.has_value()) return made(std::move(*sent));
  const std::vector<SharedMemory::Range> block = staged.BlocksRange();
  SharedMemory& memory = staged.pool_->memory();
  const auto copy = [staged = std::make_shared<Staged>(std::move(staged)), sent, &request, shape,
                     made = std::move(made)] {
    made(Copy(std::move(*staged), request, shape, Way::kLocal).value_or(std::move(*sent)));
  };
  if (memory.Find(block.front()).has_value() ||
      memory.Settle(block, deadline, [copy] { AsyncRuntime::Get().Post(copy); })) {
    copy();
  }
}

std::optional<Staged> Staged::MakeNow(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request,
                                      const Shape& shape, absl::Time deadline) {
  if (pool == nullptr) return std::nullopt;
  pool->memory().SettleNow(CallersRanges(request, shape), deadline);
  std::optional<Staged> staged = Begin(pool, request, shape);
  if (!staged.has_value()) return std::nullopt;
  pool->memory().SettleNow(staged->BlocksRange(), deadline);
  return Copy(*std::move(staged), request, shape, Way::kGrpc);
}

void Staged::MakeLater(const std::shared_ptr<StagingPool>& pool, const ComputeRequest& request, const Shape& shape,
                       absl::Time deadline, std::function<void(std::optional<Staged>)> made) {
  if (pool == nullptr) return made(std::nullopt);
  // Tensors are copied and calls start on a thread of the runtime, so that SharedMemory's thread is not held up.
  const auto later = [](std::function<void()> step) {
    return [step = std::move(step)] { AsyncRuntime::Get().Post(step); };
  };
  const auto begin = [pool, &request, shape, deadline, made = std::move(made), later] {
    std::optional<Staged> begun = Begin(pool, request, shape);
    if (!begun.has_value()) return made(std::nullopt);
    const std::shared_ptr<Staged> staged(new Staged(*std::move(begun)));
    const auto copy = [staged, &request, shape, made] { made(Copy(std::move(*staged), request, shape, Way::kGrpc)); };
    if (pool->memory().Settle(staged->BlocksRange(), deadline, later(copy))) copy();
  };
  if (pool->memory().Settle(CallersRanges(request, shape), deadline, later(begin))) begin();
}

absl::StatusOr<ComputeReply> Staged::Finish(absl::StatusOr<ComputeReply> reply, const ComputeRequest& request,
                                            const Shape& shape) && {
  if (!reply.ok() || !block_.has_value()) return reply;
  const auto size = static_cast<std::size_t>(shape.output_bytes);
  if (output_ != nullptr) {
    unsigned char* to = static_cast<unsigned char*>(request.output.data);
    if (to == nullptr) {
      std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[size]);
      if (memory == nullptr) {
        return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
      }
      to = memory.get();
      reply->output = Tensor(shape.output_dtype, shape.output_sizes, Tensor::Segment(to, size), memory);
    }
    std::memcpy(to, output_, size);
    pool_->NoteCopied(shape.output_bytes);
  }
  if (log_sum_exp_ != nullptr) {
    const auto bytes = static_cast<std::size_t>(shape.log_sum_exp_bytes);
    void* to = request.log_sum_exp.data;
    if (to == nullptr) {
      reply->log_sum_exp.resize(bytes / sizeof(float));
      to = reply->log_sum_exp.data();
    }
    std::memcpy(to, log_sum_exp_, bytes);
    pool_->NoteCopied(shape.log_sum_exp_bytes);
  }
  pool_->Put(*std::move(block_));
  return reply;
}

void Staged::Unused() && {
  if (block_.has_value()) pool_->Put(*std::move(block_));
}

}  // namespace attnd::client
