#include "server/net/file_lock.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnd::server {
namespace {

// In a folder such as /tmp, another user's file must not be opened with O_CREAT, not even by root
// (fs.protected_regular).
shm::UniqueFd Open(const std::string& path) {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  shm::UniqueFd fd(open(path.c_str(), kFlags | O_CREAT, 0600));
  if (!fd.valid() && errno == EACCES) fd = shm::UniqueFd(open(path.c_str(), kFlags));
  return fd;
}

absl::Status CannotOpen(const std::string& path) {
  const int error = errno;
  struct stat file;
  if (error == EACCES && lstat(path.c_str(), &file) == 0) {
    return absl::PermissionDeniedError(absl::StrCat("the lock ", path, " belongs to ", OwnerOf(file)));
  }
  return absl::ErrnoToStatus(error, absl::StrCat("cannot open the lock ", path));
}

bool IsAt(const std::string& path, int fd) {
  struct stat named, held;
  return lstat(path.c_str(), &named) == 0 && fstat(fd, &held) == 0 && named.st_dev == held.st_dev &&
         named.st_ino == held.st_ino;
}

}  // namespace

std::string OwnerOf(const struct stat& file) {
  passwd entry;
  passwd* found = nullptr;
  std::array<char, 4096> buffer;
  const bool named = getpwuid_r(file.st_uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return absl::StrCat(named ? found->pw_name : "a user without a name", " (uid ", file.st_uid, ")");
}

absl::StatusOr<FileLock> FileLock::Take(const std::string& path) {
  while (true) {
    shm::UniqueFd fd = Open(path);
    if (!fd.valid()) return CannotOpen(path);
    while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return absl::AlreadyExistsError(absl::StrCat("another process holds the lock ", path));
      if (errno != EINTR) return absl::ErrnoToStatus(errno, absl::StrCat("cannot lock ", path));
    }
    // The last holder may have removed the file between open and flock; then try again.
    if (IsAt(path, fd.get())) return FileLock(path, std::move(fd));
  }
}

FileLock::~FileLock() {
  if (fd_.valid()) unlink(path_.c_str());
}

}  // namespace attnd::server
