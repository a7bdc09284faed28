// A lock between processes: a file held by flock.
#pragma once

#include <sys/stat.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::server {

// The owner of a file, for messages: "root (uid 0)".
std::string OwnerOf(const struct stat& file);

// Holds a lock on a file that it creates, and removes the file when it is destroyed. If a process dies, the system
// releases its lock; the file that it leaves does not prevent another Take. Movable.
class FileLock {
 public:
  // Errors: ALREADY_EXISTS if a process holds the lock, PERMISSION_DENIED with the owner if the file is another user's,
  // or the system's error.
  static absl::StatusOr<FileLock> Take(const std::string& path);

  FileLock(FileLock&& other) noexcept = default;
  ~FileLock();

 private:
  FileLock(std::string path, shm::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  shm::UniqueFd fd_;  // none after a move
};

}  // namespace attnd::server
