#include "client/src/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attnd/shm/mapping.h"

namespace attnd::client {
namespace {

// After a server was found not to share memory it is left alone for so long.
constexpr absl::Duration kBetweenAttempts = absl::Seconds(1);

// An answer takes microseconds; a server that hangs must not hang its callers.
constexpr timeval kAnswerTimeout{2, 0};

shm::Request MakeRequest(shm::Operation operation) {
  shm::Request request{};
  request.magic = shm::kMagic;
  request.version = shm::kVersion;
  request.operation = operation;
  return request;
}

shm::UniqueFd ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return {};
  std::copy(path.begin(), path.end(), address.sun_path);
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return {};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    setsockopt(fd.get(), SOL_SOCKET, option, &kAnswerTimeout, sizeof(kAnswerTimeout));
  }
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return {};
  return fd;
}

bool Send(int socket, const shm::Request& request, int fd) {
  shm::Request copy = request;
  iovec data{&copy, sizeof(copy)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(copy);
}

// A memfd of `size` bytes that can never shrink, which is what the server insists on.
shm::UniqueFd MakeMemory(std::size_t size) {
  shm::UniqueFd fd(memfd_create("attnd", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return {};
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return {};
  return fd;
}

}  // namespace

std::shared_ptr<SharedMemory> SharedMemory::ForTarget(const std::string& target) {
  constexpr char kScheme[] = "unix:";
  constexpr std::size_t kSchemeSize = sizeof(kScheme) - 1;
  if (target.compare(0, kSchemeSize, kScheme) != 0) return nullptr;
  std::string path = target.substr(kSchemeSize);
  if (path.compare(0, 2, "//") == 0) path.erase(0, 2);
  return std::make_shared<SharedMemory>(path + shm::kSocketSuffix);
}

absl::StatusOr<std::shared_ptr<void>> SharedMemory::Allocate(std::size_t size, Pages pages) {
  const auto failed = [size] {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make ", size, " bytes of memory to share: ", std::strerror(errno)));
  };
  if (size == 0) size = 1;
  shm::UniqueFd fd = MakeMemory(size);
  if (!fd.valid()) return failed();
  // Populated at once: the first call should not pay for the pages.
  void* const data = shm::Map(fd.get(), size, MAP_POPULATE);
  if (data == MAP_FAILED) return failed();
  if (pages == Pages::kHuge) shm::UseHugePages(data, size);
  {
    absl::MutexLock lock(&mutex_);
    Region& region = regions_[reinterpret_cast<std::uintptr_t>(data)];
    region.fd = std::move(fd);
    region.size = size;
  }
  return std::shared_ptr<void>(
      data, [self = shared_from_this()](void* address) { self->Free(reinterpret_cast<std::uintptr_t>(address)); });
}

void SharedMemory::Free(std::uintptr_t address) {
  absl::MutexLock lock(&mutex_);
  const auto found = regions_.find(address);
  const Region& region = found->second;
  if (region.handle.has_value() && region.asked == connection_ && Connected()) {
    shm::Request request = MakeRequest(shm::Operation::kRelease);
    request.handle = *region.handle;
    Exchange(request, -1);
  }
  munmap(reinterpret_cast<void*>(address), region.size);  // NOLINT(performance-no-int-to-ptr): it came from a pointer
  regions_.erase(found);
}

std::optional<SharedPlace> SharedMemory::Find(const void* data, std::size_t size) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  absl::MutexLock lock(&mutex_);
  auto found = regions_.upper_bound(address);
  if (found == regions_.begin()) return std::nullopt;
  --found;
  Region& region = found->second;
  const std::uintptr_t offset = address - found->first;
  if (offset > region.size || size > region.size - offset || !Connected()) return std::nullopt;
  if (region.asked != connection_) Register(region);
  if (!region.handle.has_value()) return std::nullopt;
  return SharedPlace{*region.handle, offset};
}

bool SharedMemory::Offered() {
  absl::MutexLock lock(&mutex_);
  return Connected();
}

void SharedMemory::Forget() {
  absl::MutexLock lock(&mutex_);
  socket_ = shm::UniqueFd();
}

bool SharedMemory::Connected() {
  if (socket_.valid()) {
    // The server never speaks unasked: something to read is the end of the connection, and of all its regions.
    char byte;
    if (recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) return true;
    socket_ = shm::UniqueFd();
  }
  const absl::Time now = absl::Now();
  if (now < next_attempt_) return false;
  socket_ = ConnectTo(path_);
  if (!socket_.valid()) {
    next_attempt_ = now + kBetweenAttempts;
    return false;
  }
  ++connection_;
  return true;
}

void SharedMemory::Register(Region& region) {
  region.handle.reset();
  shm::Request request = MakeRequest(shm::Operation::kRegister);
  request.size = region.size;
  const std::optional<shm::Reply> reply = Exchange(request, region.fd.get());
  if (!reply.has_value()) return;
  region.asked = connection_;
  if (reply->code == 0) region.handle = reply->handle;
}

std::optional<shm::Reply> SharedMemory::Exchange(const shm::Request& request, int fd) {
  shm::Reply reply;
  if (Send(socket_.get(), request, fd) && recv(socket_.get(), &reply, sizeof(reply), 0) == sizeof(reply) &&
      reply.magic == shm::kMagic) {
    return reply;
  }
  // What was asked and what is answered would no longer go together.
  socket_ = shm::UniqueFd();
  next_attempt_ = absl::Now() + kBetweenAttempts;
  return std::nullopt;
}

}  // namespace attnd::client
