#include "model/model_root.h"

#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/hub_cache.h"
#include "model/model_file.h"
#include "model/names.h"

namespace attnd::model {
namespace {

using Kind = Folder::Kind;

constexpr char kItself[] = ".";

}  // namespace

absl::StatusOr<ModelRoot> ModelRoot::Open(const std::string& path) {
  absl::StatusOr<Folder> folder = Folder::OpenRoot(path);
  if (!folder.ok()) return folder.status();
  const std::string resolved(absl::StripSuffix(folder->root_path(), "/"));
  const std::size_t snapshots = resolved.rfind("/snapshots/");
  if (snapshots == std::string::npos || HubRepository(resolved).empty()) {
    return ModelRoot(*std::move(folder), kItself);
  }
  absl::StatusOr<Folder> repository = Folder::OpenRoot(resolved.substr(0, snapshots));
  if (!repository.ok()) return repository.status();
  return ModelRoot(*std::move(repository), resolved.substr(snapshots + 1));
}

std::string ModelRoot::Below(const std::string& path) const {
  if (start_ == kItself) return path;
  return path == kItself ? start_ : absl::StrCat(start_, "/", path);
}

bool ModelRoot::IsModel() const {
  if (start_ == kItself && IsHubRepository(confined_)) return true;
  if (confined_.KindOf(Below("config.json")) == Kind::kNothing) return false;
  for (const char* weights : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}) {
    if (confined_.KindOf(Below(weights)) != Kind::kNothing) return true;
  }
  return false;
}

// Whether it is a part of the model that the root is: a file of it, or a folder that is not itself a checkpoint.
bool ModelRoot::IsPart(const std::string& name) const {
  if (confined_.KindOf(Below(name)) != Kind::kFolder) return !absl::EndsWith(name, ".gguf");
  return confined_.KindOf(Below(name + "/config.json")) == Kind::kNothing;
}

std::string ModelRoot::WhyNoModel(const std::string& name) const {
  const Kind kind = confined_.KindOf(Below(name));
  if (name == "lost+found") return "the file system's own folder";
  if (kind == Kind::kFolder && IsOtherHubRepository(name)) return "no model's folder in the Hub's cache";
  const bool named_as_model = absl::EndsWith(name, ".gguf") || absl::EndsWith(name, ".json");
  return (kind == Kind::kFile || kind == Kind::kOther) && !named_as_model ? kExpectedModel : "";
}

absl::StatusOr<ModelRoot::Entries> ModelRoot::List() const {
  const absl::StatusOr<Folder::Entry> folder = confined_.Open(start_);
  if (!folder.ok()) return folder.status();
  const absl::StatusOr<std::vector<std::string>> names = std::get<Folder>(*folder).List();
  if (!names.ok()) return names.status();
  Entries entries;
  const bool is_model = IsModel();
  if (is_model) entries.models.emplace_back(kItself);
  for (const std::string& name : *names) {
    if (is_model && IsPart(name)) continue;
    std::string reason = WhyNoModel(name);
    if (reason.empty()) {
      entries.models.push_back(name);
    } else {
      entries.others.emplace_back(name, std::move(reason));
    }
  }
  return entries;
}

std::string ModelRoot::NameOf(const std::string& path) const {
  std::string full = absl::StrCat(confined_.root_path(), Below(path));
  if (absl::EndsWith(full, "/.")) full.resize(full.size() - 2);
  std::string repository = HubRepository(full);
  return repository.empty() ? Stem(full) : repository;
}

absl::StatusOr<ModelTables> ModelRoot::Read(const std::string& path, const ReadLimits& limits) const {
  return ReadModel(confined_, Below(path), limits);
}

}  // namespace attnd::model
