// Memory that callers on the same host share with the server instead of sending tensors.
//
// A region is a memfd that its owner can still write to at any moment, so nothing that is read from it may decide where
// the server reads or writes: sizes come from the request's dims alone, and tensors' values are only ever arithmetic.
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
  std::int64_t max_total_bytes = std::int64_t{8} << 30;       // of all regions that are mapped
  std::int64_t max_connection_bytes = std::int64_t{4} << 30;  // of one connection's
  std::int64_t max_connection_regions = 256;
  bool peer_shares = true;  // whether a user may map no more than what stays free (memory::Ledger)
};

// One mapped region. It stays mapped as long as anyone holds it: a call in flight survives its region's release.
class SharedRegion;

// Part of a region, checked to lie in it.
struct SharedBytes {
  std::shared_ptr<const SharedRegion> region;
  std::byte* data = nullptr;
  std::size_t size = 0;
};

// The regions of all connections, by handle. Thread-safe.
class SharedMemory {
 public:
  // Names a connection.
  using Owner = std::uint64_t;

  struct Entry {
    Owner owner;
    std::shared_ptr<const SharedRegion> region;
  };
  using Regions = std::map<shm::Handle, Entry>;

  explicit SharedMemory(const SharedMemoryLimits& limits);

  // Maps `size` bytes of `fd`, which stays the caller's, in the share of `user` (UserName). The handle is drawn from
  // the kernel's random numbers. Errors: INVALID_ARGUMENT (no memfd, not sealed against shrinking, smaller than `size`,
  // not writable), RESOURCE_EXHAUSTED (a limit, which the message names; or the system has no memory or address space
  // for the mapping).
  absl::StatusOr<shm::Handle> Register(Owner owner, absl::string_view user, int fd, std::uint64_t size)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets one region of this owner and gives it back: it is unmapped, and counts no more, once it goes. Errors:
  // NOT_FOUND, also for another owner's.
  absl::StatusOr<std::shared_ptr<const SharedRegion>> Release(Owner owner, const shm::Handle& handle)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The same for all of an owner's regions. Never throws.
  Regions Drop(Owner owner) ABSL_LOCKS_EXCLUDED(mutex_);

  // `size` bytes of the region and from the offset that `tensor` names. Errors: FAILED_PRECONDITION for a handle that
  // names no region (never given, or its connection is gone), INVALID_ARGUMENT for bytes outside of it; `field` is
  // named in both.
  absl::StatusOr<SharedBytes> Resolve(absl::string_view field, const v1::SharedTensor& tensor, std::size_t size) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes mapped now.
  std::int64_t mapped_bytes() const { return ledger_.used_bytes(); }
  memory::Ledger::Usage GetUsage() const { return ledger_.GetUsage(); }

 private:
  absl::Status Refusal(const memory::LedgerRefusal& refusal) const;
  absl::Status CheckOwnerLimits(Owner owner, std::uint64_t size) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SharedMemoryLimits limits_;
  memory::Ledger ledger_;  // of what is mapped, released regions that calls still use included
  mutable absl::Mutex mutex_;
  Regions regions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
