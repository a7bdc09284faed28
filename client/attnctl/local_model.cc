#include "client/attnctl/local_model.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "model/folder.h"
#include "model/model_file.h"

namespace attnd::ctl {

// Symbolic links may lead anywhere, as in Hugging Face's cache, so the root is the root of the file system.
absl::StatusOr<model::ModelTables> ReadLocalModel(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot open ", path));
  const absl::StatusOr<model::Folder> root = model::Folder::OpenRoot("/");
  if (!root.ok()) return root.status();
  absl::StatusOr<model::ModelTables> contents = model::ReadModel(*root, whole.relative_path().string(), {});
  if (contents.ok()) return contents;
  return absl::Status(contents.status().code(), absl::StrCat("/", contents.status().message()));
}

}  // namespace attnd::ctl
