// The client side of shared memory (proto/attnd/shm/protocol.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/region_keeper.h"

namespace attnd::client {

// Where the server finds a tensor: the contents of a SharedTensor message.
struct SharedPlace {
  shm::Handle region;
  std::uint64_t offset;
};

// Makes a memfd of `size` bytes that can never shrink, which the server requires. On failure returns an invalid
// descriptor and sets errno.
shm::UniqueFd MakeSharedMemory(std::size_t size);

// The memory that one client shares with the server at one Unix socket. A region is registered when a call first uses
// it, and again automatically after the server has restarted. Thread-safe.
class SharedMemory : public std::enable_shared_from_this<SharedMemory> {
 public:
  // `target` is a gRPC target; returns null if it is not the path of a Unix socket.
  static std::shared_ptr<SharedMemory> ForTarget(const std::string& target);

  // The server's socket is at `path`.
  explicit SharedMemory(std::string path) : keeper_(std::make_shared<RegionKeeper>(std::move(path))) {}
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;

  // kHuge is for memory that is used for a long time: the server reads it faster (docs/performance.md, "What huge pages
  // bring"), but allocating it takes about two milliseconds for each MiB, ten times as long.
  enum class Pages : std::uint8_t { kSmall, kHuge };

  // Allocates `size` zeroed, page-aligned bytes. They are freed, also at the server, with the last reference. Errors:
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<std::shared_ptr<void>> Allocate(std::size_t size, Pages pages = Pages::kSmall)
      ABSL_LOCKS_EXCLUDED(mutex_);

  struct Range {
    const void* data;
    std::size_t size;
  };

  // The region and offset of a range. nullopt if its bytes are not all in one region, or if it is not known (see
  // Settle) that the server shares that region. Does not wait.
  std::optional<SharedPlace> Find(const Range& range) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the range lies in one region. Does not wait.
  bool Owns(const Range& range) { return RegionOf(range).has_value(); }

  // Whether the server is known to share memory. Does not wait.
  bool Offered() { return keeper_->Offered(); }

  // Returns true if the server has answered for the regions that contain `ranges`. Otherwise registers those regions
  // and calls `settled` once, on a thread that must not be blocked, when the answers are there; at the latest at
  // `deadline` and after RegionKeeper::kPatience.
  bool Settle(const std::vector<Range>& ranges, absl::Time deadline, std::function<void()> settled)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // As Settle, but waits.
  void SettleNow(const std::vector<Range>& ranges, absl::Time deadline);

  // Checks whether the server has closed the connection that registered the regions, and if so forgets their handles.
  void Check() { keeper_->Check(); }

  // For when the server does not know a handle any more: forgets all handles.
  void Forget() { keeper_->Forget(); }

 private:
  struct Place {
    std::shared_ptr<RegionKeeper::Region> region;
    std::uint64_t offset;
  };

  std::optional<Place> RegionOf(const Range& range) ABSL_LOCKS_EXCLUDED(mutex_);
  void Free(std::uintptr_t address) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::shared_ptr<RegionKeeper> keeper_;
  absl::Mutex mutex_;
  std::map<std::uintptr_t, std::shared_ptr<RegionKeeper::Region>> regions_ ABSL_GUARDED_BY(mutex_);  // by address
};

}  // namespace attnd::client
