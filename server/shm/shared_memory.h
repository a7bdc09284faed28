// Memory that callers on the same host share with the server instead of sending tensors.
//
// A region is a memfd that its owner can still write to at any moment, so nothing that is read from it may decide where
// the server reads or writes: sizes come from the request's dims alone, and tensor values are used only in arithmetic.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "attnd/shm/protocol.h"
#include "attnd/v1/attention.pb.h"
#include "memory/ledger.h"

namespace attnd::server {

struct SharedMemoryLimits {
  std::int64_t max_total_bytes = std::int64_t{8} << 30;       // all mapped regions
  std::int64_t max_connection_bytes = std::int64_t{4} << 30;  // regions of one connection
  std::int64_t max_connection_regions = 256;
  bool peer_shares = true;  // limit a user to what stays free (memory::Ledger)
};

// One mapped region. It stays mapped as long as anyone holds a reference: a call under way survives its region's
// release.
class SharedRegion;

// Bytes of a region, checked to lie within it.
struct SharedBytes {
  std::shared_ptr<const SharedRegion> region;
  std::byte* data = nullptr;
  std::size_t size = 0;
};

// The regions of all connections, by handle. Thread-safe.
class SharedMemory {
 public:
  // Identifies a connection.
  using Owner = std::uint64_t;

  struct Entry {
    Owner owner;
    std::shared_ptr<const SharedRegion> region;
  };
  using Regions = std::map<shm::Handle, Entry>;

  explicit SharedMemory(const SharedMemoryLimits& limits);

  // Maps `size` bytes of `fd`, which the caller keeps, charged to the share of `user` (UserName). The handle is drawn
  // from the kernel's random numbers. Errors: INVALID_ARGUMENT (not a memfd, not sealed against shrinking, smaller than
  // `size`, not writable), RESOURCE_EXHAUSTED (a limit, which the message names; or the system has no memory or address
  // space for the mapping).
  absl::StatusOr<shm::Handle> Register(Owner owner, absl::string_view user, int fd, std::uint64_t size)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Removes one region of this owner and returns it: it is unmapped, and stops counting, when its last reference goes.
  // Errors: NOT_FOUND, also for another owner's region.
  absl::StatusOr<std::shared_ptr<const SharedRegion>> Release(Owner owner, const shm::Handle& handle)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The same for all of an owner's regions. Never throws.
  Regions Drop(Owner owner) ABSL_LOCKS_EXCLUDED(mutex_);

  // Finds the `size` bytes at the region and offset that `tensor` names. Errors: FAILED_PRECONDITION for a handle that
  // names no region (never issued, or its connection is gone), INVALID_ARGUMENT for bytes outside the region; both name
  // `field`.
  absl::StatusOr<SharedBytes> Resolve(absl::string_view field, const v1::SharedTensor& tensor, std::size_t size) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes mapped now.
  std::int64_t mapped_bytes() const { return ledger_.used_bytes(); }
  memory::Ledger::Usage GetUsage() const { return ledger_.GetUsage(); }

 private:
  absl::Status Refusal(const memory::LedgerRefusal& refusal) const;
  absl::Status CheckOwnerLimits(Owner owner, std::uint64_t size) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SharedMemoryLimits limits_;
  memory::Ledger ledger_;  // mapped bytes, including released regions that calls still use
  mutable absl::Mutex mutex_;
  Regions regions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
