// The folder that models are loaded from.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/folder.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// The folder that --model_root names, opened. Nothing outside it is read, with one exception: if it is a snapshot in
// the Hub's cache, the limit is the repository's folder, because the snapshot's files are links to the blobs there.
// Thread-safe.
class ModelRoot {
 public:
  // Errors: those of Folder::OpenRoot.
  static absl::StatusOr<ModelRoot> Open(const std::string& path);

  // Whether the root is itself a model's folder (a checkpoint, or a repository's folder in the Hub's cache). Its path
  // is then ".".
  bool IsModel() const;

  // The entries directly in the root, sorted: `models` are those to load at the start, `others` those that do not look
  // like a model, with the reason. If the root is itself a model, its parts are in neither. Errors: those of
  // Folder::List.
  struct Entries {
    std::vector<std::string> models;
    std::vector<std::pair<std::string, std::string>> others;
  };
  absl::StatusOr<Entries> List() const;

  // The default name of the model at `path` (normalized): the repository's if it comes from the Hub's cache, otherwise
  // the folder's name, or the file's without its extension.
  std::string NameOf(const std::string& path) const;

  // Errors: those of ReadModel (model_file.h).
  absl::StatusOr<ModelTables> Read(const std::string& path, const ReadLimits& limits) const;

 private:
  ModelRoot(Folder confined, std::string start) : confined_(std::move(confined)), start_(std::move(start)) {}

  std::string Below(const std::string& path) const;
  bool IsPart(const std::string& name) const;
  std::string WhyNoModel(const std::string& name) const;

  Folder confined_;
  std::string start_;  // the root's path below `confined_`: ".", or "snapshots/COMMIT"
};

}  // namespace attnd::model
