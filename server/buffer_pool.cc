#include "server/buffer_pool.h"

#include <bit>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace attnd::server {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmallest = 4096;

// `size` rounded up to one of four sizes per power of two.
std::size_t ClassSize(std::size_t size) {
  if (size <= kSmallest) return kSmallest;
  const auto step_bits = std::bit_width(size) - 3;
  return (((size - 1) >> step_bits) + 1) << step_bits;
}

struct Free {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};

}  // namespace

// One allocation. While it is on a shelf `owner` is empty, so that an abandoned pool frees what it keeps.
struct Buffer::Block {
  std::unique_ptr<std::byte, Free> bytes;
  std::size_t capacity;
  std::shared_ptr<BufferPool::Shelves> owner;
};

class BufferPool::Shelves {
 public:
  explicit Shelves(std::size_t max_idle_bytes) : max_idle_bytes_(max_idle_bytes) {}

  // An idle block of this class, or null.
  std::unique_ptr<Buffer::Block> Take(std::size_t capacity) {
    absl::MutexLock lock(&mutex_);
    const auto found = idle_.find(capacity);
    if (found == idle_.end() || found->second.empty()) return nullptr;
    std::unique_ptr<Buffer::Block> block = std::move(found->second.back());
    found->second.pop_back();
    idle_bytes_ -= capacity;
    return block;
  }

  // Keeps the block if there is room, and hands it back if not.
  std::unique_ptr<Buffer::Block> Put(std::unique_ptr<Buffer::Block> block) {
    absl::MutexLock lock(&mutex_);
    if (block->capacity > max_idle_bytes_ - idle_bytes_) return block;
    idle_bytes_ += block->capacity;
    idle_[block->capacity].push_back(std::move(block));
    return nullptr;
  }

  std::size_t idle_bytes() const {
    absl::MutexLock lock(&mutex_);
    return idle_bytes_;
  }

 private:
  const std::size_t max_idle_bytes_;
  mutable absl::Mutex mutex_;
  std::map<std::size_t, std::vector<std::unique_ptr<Buffer::Block>>> idle_ ABSL_GUARDED_BY(mutex_);
  std::size_t idle_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

std::byte* Buffer::data() const { return block_ == nullptr ? nullptr : block_->bytes.get(); }

void Buffer::Release(Block* block) {
  if (block == nullptr) return;
  std::unique_ptr<Block> owned(block);
  const std::shared_ptr<BufferPool::Shelves> shelves = std::move(owned->owner);
  const std::unique_ptr<Block> surplus = shelves->Put(std::move(owned));  // freed here, outside the lock
}

grpc::Slice Buffer::ToSlice() && {
  const std::size_t size = std::exchange(size_, 0);
  Block* const block = std::exchange(block_, nullptr);
  if (block == nullptr) return grpc::Slice();
  return grpc::Slice(
      block->bytes.get(), size, [](void* released) { Release(static_cast<Block*>(released)); }, block);
}

BufferPool::BufferPool(std::size_t max_idle_bytes) : shelves_(std::make_shared<Shelves>(max_idle_bytes)) {}

absl::StatusOr<Buffer> BufferPool::Get(std::size_t size) {
  if (size == 0) return Buffer();
  const std::size_t capacity = ClassSize(size);
  std::unique_ptr<Buffer::Block> block = shelves_->Take(capacity);
  if (block == nullptr) {
    std::byte* const bytes = static_cast<std::byte*>(std::aligned_alloc(kAlignment, capacity));
    if (bytes == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("the server has no memory for a result of ", size, " bytes"));
    }
    block = std::make_unique<Buffer::Block>();
    block->bytes.reset(bytes);
    block->capacity = capacity;
  }
  block->owner = shelves_;
  return Buffer(block.release(), size);
}

std::size_t BufferPool::idle_bytes() const { return shelves_->idle_bytes(); }

}  // namespace attnd::server
