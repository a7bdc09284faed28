// A folder that opens only what is inside its root: how the model root confines paths.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "files/byte_source.h"

namespace attnd::model {

// Follows symbolic links as long as their target is below the root. That is checked on the object found, not on its
// name, so nothing can be exchanged between the check and the opening. Keeps the folder that it opened, even if it is
// renamed. Needs Linux with /proc. Thread-safe.
class Folder {
 public:
  // Errors: NOT_FOUND (also if `path` is not a folder), PERMISSION_DENIED (to list the folder, to open what is in it,
  // or /proc is missing), INVALID_ARGUMENT (a link to nothing or a loop of links), RESOURCE_EXHAUSTED (no file
  // descriptors left).
  static absl::StatusOr<Folder> OpenRoot(const std::string& path);

  Folder(Folder&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), root_(std::move(other.root_)) {}
  Folder& operator=(Folder&&) = delete;
  ~Folder();

  // Opens a file, or a folder with the same root. `path` is relative and normalized (names.h). Messages contain `path`,
  // never what is above the root. Errors: NOT_FOUND, PERMISSION_DENIED (also if `path` leads out of the root),
  // INVALID_ARGUMENT (neither a regular file nor a folder, a link to nothing, a loop of links), RESOURCE_EXHAUSTED (no
  // file descriptors left).
  using Entry = std::variant<Folder, std::unique_ptr<files::ByteSource>>;
  absl::StatusOr<Entry> Open(const std::string& path) const;

  // The same for a file. INVALID_ARGUMENT if it is a folder.
  absl::StatusOr<std::unique_ptr<files::ByteSource>> OpenFile(const std::string& path) const;

  // What is at `path`, links followed, without opening it. kNothing also if that cannot be determined.
  enum class Kind { kNothing, kFile, kFolder, kOther };
  Kind KindOf(const std::string& path) const;

  // The names in the folder, sorted, without those that begin with a dot. Errors: PERMISSION_DENIED, DATA_LOSS,
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<std::vector<std::string>> List() const;

  // The root's own path, links resolved, ending in '/'.
  const std::string& root_path() const { return root_; }

 private:
  Folder(int descriptor, std::string root) : descriptor_(descriptor), root_(std::move(root)) {}

  int descriptor_;
  std::string root_;
};

}  // namespace attnd::model
