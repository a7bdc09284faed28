#include "files/output_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "files/descriptor.h"
#include "files/system_error.h"

namespace attnd::files {
namespace {

constexpr int kMaxLinks = 40;

absl::Status WriteDescriptor(int descriptor, Bytes bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd ready = {descriptor, POLLOUT, 0};
      poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return WriteError(errno, name);
    }
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int descriptor, absl::Span<const Bytes> pieces, const std::string& name) {
  for (const Bytes piece : pieces) {
    if (absl::Status written = WriteDescriptor(descriptor, piece, name); !written.ok()) return written;
  }
  return absl::OkStatus();
}

std::string FolderOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// The path that a file written to `path` gets, links followed, including a last link whose target does not exist yet.
std::string Followed(std::string path) {
  for (int links = 0; links < kMaxLinks; ++links) {
    std::string target(PATH_MAX, '\0');
    const ssize_t size = readlink(path.c_str(), target.data(), target.size());
    if (size < 0) break;
    target.resize(static_cast<std::size_t>(size));
    path = target.front() == '/' ? target : absl::StrCat(FolderOf(path), target);
  }
  return path;
}

// A new file in the folder of `goal`, under a temporary name; removed unless it is moved to `goal`.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& goal) : goal_(goal) {
    std::random_device random;
    do {
      name_ = absl::StrCat(FolderOf(goal), ".", absl::Hex(random(), absl::kZeroPad8), ".tmp");
      descriptor_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && errno == EEXIST);
    error_ = descriptor_ < 0 ? errno : 0;
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    if (!moved_) unlink(name_.c_str());
  }

  int error() const { return error_; }  // of creating it
  int descriptor() const { return descriptor_; }

  // Gives the file the owner and permissions of `old`. Returns false if that fails.
  bool LooksLike(const struct stat& old) const {
    struct stat mine;
    if (fstat(descriptor_, &mine) != 0) return false;
    const bool same_owner = mine.st_uid == old.st_uid && mine.st_gid == old.st_gid;
    return (same_owner || fchown(descriptor_, old.st_uid, old.st_gid) == 0) &&
           fchmod(descriptor_, old.st_mode & 07777) == 0;
  }

  bool MoveToGoal() {
    moved_ = fsync(descriptor_) == 0 && std::rename(name_.c_str(), goal_.c_str()) == 0;
    return moved_;
  }

 private:
  const std::string goal_;
  std::string name_;
  int descriptor_ = -1;
  int error_ = 0;
  bool moved_ = false;
};

// Writes a new file in the place of `old`, or where there was none. nullopt if the old file cannot be replaced by a
// file like it.
std::optional<absl::Status> Replace(const std::string& path, const struct stat* old, absl::Span<const Bytes> pieces) {
  const std::string goal = Followed(path);
  TemporaryFile file(goal);
  if (file.error() != 0) {
    if (old != nullptr && (file.error() == EACCES || file.error() == EPERM || file.error() == EROFS)) {
      return std::nullopt;
    }
    return WriteError(file.error(), path);
  }
  if (old != nullptr && !file.LooksLike(*old)) return std::nullopt;
  if (absl::Status written = WriteAll(file.descriptor(), pieces, path); !written.ok()) return written;
  if (file.MoveToGoal()) return absl::OkStatus();
  if (old != nullptr && (errno == EBUSY || errno == EACCES || errno == EPERM)) return std::nullopt;  // a mount point
  return WriteError(errno, path);
}

// Overwrites a regular file in place, after reserving space for all of it.
absl::Status Overwrite(const std::string& path, const struct stat& old, absl::Span<const Bytes> pieces) {
  Descriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (file.get() < 0) return WriteError(errno, path);
  off_t size = 0;
  for (const Bytes piece : pieces) size += static_cast<off_t>(piece.size());
  if (size > old.st_size) {
    const int error = posix_fallocate(file.get(), old.st_size, size - old.st_size);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
      const bool as_before = ftruncate(file.get(), old.st_size) == 0;
      return WriteError(as_before ? error : errno, path);
    }
  }
  if (absl::Status written = WriteAll(file.get(), pieces, path); !written.ok()) {
    return ftruncate(file.get(), 0) == 0 ? written : WriteError(errno, path);  // leave no half-written file
  }
  if (ftruncate(file.get(), size) != 0 || fsync(file.get()) != 0 || !file.Close()) return WriteError(errno, path);
  return absl::OkStatus();
}

absl::Status WriteThrough(const std::string& path, absl::Span<const Bytes> pieces) {
  Descriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (file.get() < 0) return WriteError(errno, path);
  if (absl::Status written = WriteAll(file.get(), pieces, path); !written.ok()) return written;
  return file.Close() ? absl::OkStatus() : WriteError(errno, path);
}

// The standard stream that `there` is, if it is a file, pipe or socket; -1 if it is none. Opened by its name instead, a
// file would be overwritten from the beginning.
int StandardStream(const struct stat& there) {
  if (!S_ISREG(there.st_mode) && !S_ISFIFO(there.st_mode) && !S_ISSOCK(there.st_mode)) return -1;
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat its;
    if (fstat(stream, &its) == 0 && its.st_dev == there.st_dev && its.st_ino == there.st_ino) return stream;
  }
  return -1;
}

}  // namespace

absl::Status WriteError(int error, std::string_view name) {
  return SystemError(error, absl::StrCat("cannot write ", std::string(name)), absl::StatusCode::kFailedPrecondition);
}

bool IsStandardOutput(const std::string& path) {
  struct stat there;
  return path == "-" || (stat(path.c_str(), &there) == 0 && StandardStream(there) == STDOUT_FILENO);
}

absl::Status WriteFile(const std::string& path, absl::Span<const Bytes> pieces) {
  if (path == "-") return WriteAll(STDOUT_FILENO, pieces, "standard output");
  struct stat old;
  if (stat(path.c_str(), &old) != 0) {
    if (errno != ENOENT) return WriteError(errno, path);
    return *Replace(path, nullptr, pieces);
  }
  if (const int stream = StandardStream(old); stream >= 0) return WriteAll(stream, pieces, path);
  if (S_ISDIR(old.st_mode) || S_ISSOCK(old.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", path, ": it is a ", S_ISDIR(old.st_mode) ? "folder" : "socket"));
  }
  if (!S_ISREG(old.st_mode)) return WriteThrough(path, pieces);
  // Without this check, a user who may write to the folder would replace a write-protected file. The usual tools do
  // not.
  if (faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) return WriteError(errno, path);
  if (old.st_nlink == 1) {
    if (std::optional<absl::Status> replaced = Replace(path, &old, pieces)) return *replaced;
  }
  return Overwrite(path, old, pieces);
}

}  // namespace attnd::files
