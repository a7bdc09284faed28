// One process at a time: a file held by flock.
#pragma once

#include <sys/stat.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "attnd/shm/unique_fd.h"

namespace attnd::server {

// Whose a file is, for messages: "root (uid 0)".
std::string OwnerOf(const struct stat& file);

// Holds the lock of a file that is made for it, and removes the file when it goes. The system lets the lock of a
// process that died go by itself; the file that such a process leaves behind is no obstacle. Movable.
class FileLock {
 public:
  // Errors: ALREADY_EXISTS if a process holds it, PERMISSION_DENIED with the owner if the file is another user's, or
  // what the system says.
  static absl::StatusOr<FileLock> Take(const std::string& path);

  FileLock(FileLock&& other) noexcept = default;
  ~FileLock();

 private:
  FileLock(std::string path, shm::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  shm::UniqueFd fd_;  // none after a move
};

}  // namespace attnd::server
