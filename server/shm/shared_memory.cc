#include "server/shm/shared_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "attnd/shm/mapping.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

// Accepts only files whose pages cannot vanish or fail to be allocated while the server uses them. With any other file,
// a caller could stop the whole server with a SIGBUS: a file that can be truncated, a file of a full or broken
// filesystem (only a memfd can carry the seal), or a memfd of huge pages (none may be left when a hole is touched).
absl::Status CheckKind(int fd) {
  constexpr char kExpected[] = "a memfd sealed with F_SEAL_SHRINK";
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) return InvalidField("region", kExpected, "a file without seals");
  if ((seals & F_SEAL_SHRINK) == 0) return InvalidField("region", kExpected, "one that can shrink");
  struct statfs filesystem;
  if (fstatfs(fd, &filesystem) != 0 || filesystem.f_type != TMPFS_MAGIC) {
    return InvalidField("region", kExpected, "one of huge pages");
  }
  return absl::OkStatus();
}

// With the seal, the size seen here can only grow.
absl::Status CheckSize(int fd, std::uint64_t size) {
  struct stat file;
  if (fstat(fd, &file) != 0) return InvalidField("region", "a memfd", std::strerror(errno));
  if (size == 0 || size > static_cast<std::uint64_t>(file.st_size)) {
    return InvalidField("size", absl::StrCat("1..", file.st_size, " (the memfd's size)"), size);
  }
  return absl::OkStatus();
}

absl::Status NotMapped(std::size_t size, int error) {
  // ENOMEM: no address space (ulimit -v) or too many mappings. EAGAIN: locked memory.
  if (error == ENOMEM || error == EAGAIN) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server has no memory to map a region of ", size, " bytes: ", std::strerror(error)));
  }
  return InvalidField("region", "a memfd that can be mapped for reading and writing", std::strerror(error));
}

absl::StatusOr<shm::Handle> RandomHandle() {
  shm::Handle handle;
  if (getrandom(handle.data(), handle.size(), 0) != static_cast<ssize_t>(handle.size())) {
    return absl::InternalError("the system gave no random numbers");
  }
  return handle;
}

}  // namespace

class SharedRegion {
 public:
  // Not mapped yet. Takes over the reservation of its bytes.
  SharedRegion(std::size_t size, memory::Ticket lease) : size_(size), lease_(std::move(lease)) {}
  ~SharedRegion() {
    if (data_ != nullptr) munmap(data_, size_);
  }
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  // Call once, before anyone else has the region.
  absl::Status Map(int fd) {
    void* const data = shm::Map(fd, size_, 0);
    if (data == MAP_FAILED) return NotMapped(size_, errno);
    madvise(data, size_, MADV_DONTDUMP);  // keeps callers' tensors out of a core file
    data_ = static_cast<std::byte*>(data);
    return absl::OkStatus();
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  const std::size_t size_;
  const memory::Ticket lease_;
};

SharedMemory::SharedMemory(const SharedMemoryLimits& limits)
    : limits_(limits), ledger_({.total = limits.max_total_bytes, .shares = limits.peer_shares}) {}

absl::Status SharedMemory::CheckOwnerLimits(Owner owner, std::uint64_t size) const {
  std::int64_t count = 0;
  std::uint64_t bytes = 0;
  for (const auto& [handle, entry] : regions_) {
    if (entry.owner != owner) continue;
    ++count;
    bytes += entry.region->size();
  }
  if (count >= limits_.max_connection_regions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("region: expected at most ", limits_.max_connection_regions, " regions of one connection"));
  }
  const std::uint64_t limit = static_cast<std::uint64_t>(limits_.max_connection_bytes);
  if (size > limit || bytes > limit - size) {
    return absl::ResourceExhaustedError(
        absl::StrCat("size: expected at most ", limit, " bytes of one connection, got ", size, " on top of ", bytes));
  }
  return absl::OkStatus();
}

absl::Status SharedMemory::Refusal(const memory::LedgerRefusal& refusal) const {
  using Reason = memory::LedgerRefusal::Reason;
  const std::string total =
      absl::StrCat(limits_.max_total_bytes, " bytes shared by all connections (--max_shared_bytes)");
  if (refusal.reason == Reason::kShare) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "size: expected at most ", refusal.most, " bytes of one user while ", limits_.max_total_bytes - refusal.used,
        " are free of ", total, ", got ", refusal.asked, " on top of ", refusal.held));
  }
  if (refusal.reason == Reason::kNever && limits_.peer_shares) {
    return absl::ResourceExhaustedError(absl::StrCat("size: expected at most ", refusal.most,
                                                     ", the half that one user can have of ", total, ", got ",
                                                     refusal.asked));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("size: expected at most ", total, ", got ", refusal.asked, " on top of ", refusal.used));
}

absl::StatusOr<shm::Handle> SharedMemory::Register(Owner owner, absl::string_view user, int fd, std::uint64_t size) {
  if (const absl::Status kind = CheckKind(fd); !kind.ok()) return kind;
  if (const absl::Status fits = CheckSize(fd, size); !fits.ok()) return fits;
  absl::StatusOr<shm::Handle> handle = RandomHandle();
  if (!handle.ok()) return handle;

  absl::MutexLock lock(&mutex_);
  if (const absl::Status allowed = CheckOwnerLimits(owner, size); !allowed.ok()) return allowed;
  // `size` fits std::int64_t: CheckOwnerLimits has bounded it by max_connection_bytes.
  std::variant<memory::Ticket, memory::LedgerRefusal> taken =
      ledger_.Take(ledger_.AccountOf(user), static_cast<std::int64_t>(size));
  if (const auto* const refusal = std::get_if<memory::LedgerRefusal>(&taken)) return Refusal(*refusal);
  // Allocate our own objects before mapping, so that a failed allocation leaves no mapping without an owner.
  auto region = std::make_shared<SharedRegion>(size, std::get<memory::Ticket>(std::move(taken)));
  const auto entry = regions_.emplace(*handle, Entry{owner, region}).first;
  if (const absl::Status mapped = region->Map(fd); !mapped.ok()) {
    regions_.erase(entry);
    return mapped;
  }
  return handle;
}

absl::StatusOr<std::shared_ptr<const SharedRegion>> SharedMemory::Release(Owner owner, const shm::Handle& handle) {
  absl::MutexLock lock(&mutex_);
  const auto found = regions_.find(handle);
  if (found == regions_.end() || found->second.owner != owner) {
    return absl::NotFoundError("handle: expected one of this connection's regions, got another");
  }
  std::shared_ptr<const SharedRegion> region = std::move(found->second.region);
  regions_.erase(found);
  return region;
}

SharedMemory::Regions SharedMemory::Drop(Owner owner) {
  Regions dropped;
  absl::MutexLock lock(&mutex_);
  for (auto entry = regions_.begin(); entry != regions_.end();) {
    const auto next = std::next(entry);
    // The node is moved, which does not allocate.
    if (entry->second.owner == owner) dropped.insert(regions_.extract(entry));
    entry = next;
  }
  return dropped;
}

absl::StatusOr<SharedBytes> SharedMemory::Resolve(absl::string_view field, const v1::SharedTensor& tensor,
                                                  std::size_t size) const {
  shm::Handle handle;
  if (tensor.region().size() != handle.size()) {
    return InvalidField(absl::StrCat(field, ".region"), absl::StrCat("a handle of ", handle.size(), " bytes"),
                        absl::StrCat(tensor.region().size(), " bytes"));
  }
  std::copy(tensor.region().begin(), tensor.region().end(), handle.begin());
  std::shared_ptr<const SharedRegion> region;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = regions_.find(handle);
    if (found != regions_.end()) region = found->second.region;
  }
  if (region == nullptr) {
    return FieldError(absl::StatusCode::kFailedPrecondition, absl::StrCat(field, ".region"),
                      "the handle of a region whose connection lives", "a handle that names none");
  }
  if (tensor.offset() > region->size() || size > region->size() - tensor.offset()) {
    return InvalidField(absl::StrCat(field, ".offset"),
                        absl::StrCat(size, " bytes within the region's ", region->size()),
                        absl::StrCat("offset ", tensor.offset()));
  }
  std::byte* const data = region->data() + tensor.offset();
  return SharedBytes{std::move(region), data, size};
}

}  // namespace attnd::server
