#include "client/src/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attnd/shm/mapping.h"
#include "client/src/process.h"
#include "client/src/target.h"

namespace attnd::client {

shm::UniqueFd MakeSharedMemory(std::size_t size) {
  shm::UniqueFd fd(memfd_create("attnd", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return {};
  int truncated;
  do {
    truncated = ftruncate(fd.get(), static_cast<off_t>(size));
  } while (truncated != 0 && errno == EINTR);
  if (truncated != 0) return {};
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return {};
  return fd;
}

SharedMemory::~SharedMemory() {
  // A forked child does not have this thread, and another thread of its parent may have held the lock.
  if (!Forked()) keeper_->Stop();
}

std::shared_ptr<SharedMemory> SharedMemory::ForTarget(const std::string& target) {
  std::optional<std::string> path = SocketBeside(target);
  if (!path.has_value()) return nullptr;
  return std::make_shared<SharedMemory>(*std::move(path));
}

absl::StatusOr<std::shared_ptr<void>> SharedMemory::Allocate(std::size_t size, Pages pages) {
  const auto failed = [size] {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make ", size, " bytes of memory to share: ", std::strerror(errno)));
  };
  if (size == 0) size = 1;
  shm::UniqueFd fd = MakeSharedMemory(size);
  if (!fd.valid()) return failed();
  // Populated now, so that the first call does not pay for page faults.
  void* const data = shm::Map(fd.get(), size, MAP_POPULATE);
  if (data == MAP_FAILED) return failed();
  if (pages == Pages::kHuge) shm::UseHugePages(data, size);
  {
    absl::MutexLock lock(&mutex_);
    regions_[reinterpret_cast<std::uintptr_t>(data)] = std::make_shared<RegionKeeper::Region>(std::move(fd), size);
  }
  return std::shared_ptr<void>(
      data, [self = shared_from_this()](void* address) { self->Free(reinterpret_cast<std::uintptr_t>(address)); });
}

void SharedMemory::Free(std::uintptr_t address) {
  std::shared_ptr<RegionKeeper::Region> region;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = regions_.find(address);
    region = std::move(found->second);
    regions_.erase(found);
  }
  keeper_->Release(region);
  munmap(reinterpret_cast<void*>(address), region->size);  // NOLINT(performance-no-int-to-ptr): it came from a pointer
}

std::optional<SharedMemory::Place> SharedMemory::RegionOf(const Range& range) {
  const auto address = reinterpret_cast<std::uintptr_t>(range.data);
  absl::MutexLock lock(&mutex_);
  auto found = regions_.upper_bound(address);
  if (found == regions_.begin()) return std::nullopt;
  --found;
  const std::shared_ptr<RegionKeeper::Region>& region = found->second;
  const std::uintptr_t offset = address - found->first;
  if (offset > region->size || range.size > region->size - offset) return std::nullopt;
  return Place{region, offset};
}

std::optional<SharedPlace> SharedMemory::Find(const Range& range) {
  const std::optional<Place> place = RegionOf(range);
  if (!place.has_value()) return std::nullopt;
  const std::optional<shm::Handle> handle = keeper_->HandleOf(*place->region);
  if (!handle.has_value()) return std::nullopt;
  return SharedPlace{*handle, place->offset};
}

bool SharedMemory::Settle(const std::vector<Range>& ranges, absl::Time deadline, std::function<void()> settled) {
  RegionKeeper::Regions regions;
  for (const Range& range : ranges) {
    if (std::optional<Place> place = RegionOf(range); place.has_value()) regions.push_back(std::move(place->region));
  }
  // Settle waits for at most kPatience anyway; the limit keeps the sum below from overflowing.
  const absl::Duration left = std::min(deadline - absl::Now(), absl::FromChrono(RegionKeeper::kPatience));
  return keeper_->Settle(std::move(regions), RegionKeeper::Clock::now() + absl::ToChronoNanoseconds(left),
                         std::move(settled));
}

void SharedMemory::SettleNow(const std::vector<Range>& ranges, absl::Time deadline) {
  const auto settled = std::make_shared<absl::Notification>();
  if (Settle(ranges, deadline, [settled] { settled->Notify(); })) return;
  // The time limit is for a child process after a fork, which does not have the keeper's thread.
  settled->WaitForNotificationWithTimeout(2 * absl::FromChrono(RegionKeeper::kPatience));
}

}  // namespace attnd::client
