// A folder whose contents can be opened, and nothing outside it: how the model root confines paths.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "files/byte_source.h"

namespace attnd::model {

// Symbolic links are followed as long as what they lead to lies below the root. That is checked on the object that has
// been found, not on its name, so nothing can be exchanged between the check and the opening. Keeps the folder that it
// opened, whatever is renamed meanwhile. Linux, with /proc. Thread-safe.
class Folder {
 public:
  // Errors: NOT_FOUND (also if it is no folder), PERMISSION_DENIED (to list it, or to open what is in it),
  // INVALID_ARGUMENT (a link to nothing or in circles).
  static absl::StatusOr<Folder> OpenRoot(const std::string& path);

  Folder(Folder&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), root_(std::move(other.root_)) {}
  Folder& operator=(Folder&&) = delete;
  ~Folder();

  // A file, or a folder of the same root. `path` is relative and normalized (names.h); messages name it, and never what
  // lies above the root. Errors: NOT_FOUND, PERMISSION_DENIED (also if it leads out of the root), INVALID_ARGUMENT
  // (neither a regular file nor a folder, a link to nothing or in circles), RESOURCE_EXHAUSTED (no file descriptors
  // left).
  using Entry = std::variant<Folder, std::unique_ptr<files::ByteSource>>;
  absl::StatusOr<Entry> Open(const std::string& path) const;

  // The same for a file. INVALID_ARGUMENT if it is none.
  absl::StatusOr<std::unique_ptr<files::ByteSource>> OpenFile(const std::string& path) const;

  // What stands at `path`, links followed, without opening it. kNothing also where that cannot be told.
  enum class Kind { kNothing, kFile, kFolder, kOther };
  Kind KindOf(const std::string& path) const;

  // The names in the folder, in order, without those that begin with a dot. Errors: DATA_LOSS, RESOURCE_EXHAUSTED.
  absl::StatusOr<std::vector<std::string>> List() const;

  // The root's own path, links resolved, ending in '/'.
  const std::string& root_path() const { return root_; }

 private:
  Folder(int descriptor, std::string root) : descriptor_(descriptor), root_(std::move(root)) {}

  int descriptor_;
  std::string root_;
};

}  // namespace attnd::model
