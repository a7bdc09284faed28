// The client's side of shared memory (proto/attnd/shm/protocol.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::client {

// Where the server finds bytes: what SharedTensor says.
struct SharedPlace {
  shm::Handle region;
  std::uint64_t offset;
};

// The memory that one client shares with the server at one Unix socket. Regions are registered when a call first uses
// them, and again, by themselves, with a server that was started anew. Thread-safe.
class SharedMemory : public std::enable_shared_from_this<SharedMemory> {
 public:
  // `target` is a gRPC name; null if it is no path of a Unix socket.
  static std::shared_ptr<SharedMemory> ForTarget(const std::string& target);

  // The server's socket is at `path`.
  explicit SharedMemory(std::string path) : path_(std::move(path)) {}

  // kHuge is for memory that is used for long: the server reads it faster (docs/performance.md, "What huge
  // pages bring"), and making it takes some two milliseconds a MiB, ten times as long.
  enum class Pages : std::uint8_t { kSmall, kHuge };

  // `size` bytes of zeros, aligned to a page, freed (also at the server) with the last reference. Errors:
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<std::shared_ptr<void>> Allocate(std::size_t size, Pages pages = Pages::kSmall)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The name of `size` bytes at `data`; nullopt if they are not all in one region, or the server does not share it.
  std::optional<SharedPlace> Find(const void* data, std::size_t size) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the server offers to share memory: connects if that has not been done.
  bool Offered() ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes note that the server knows a handle no more.
  void Forget() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Region {
    shm::UniqueFd fd;
    std::size_t size;
    std::uint64_t asked = 0;            // the connection that it was offered to last
    std::optional<shm::Handle> handle;  // what that answered; none: refused
  };

  bool Connected() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Register(Region& region) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Free(std::uintptr_t address) ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<shm::Reply> Exchange(const shm::Request& request, int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  absl::Mutex mutex_;
  shm::UniqueFd socket_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t connection_ ABSL_GUARDED_BY(mutex_) = 0;  // counts connections
  absl::Time next_attempt_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::map<std::uintptr_t, Region> regions_ ABSL_GUARDED_BY(mutex_);  // by address
};

}  // namespace attnd::client
