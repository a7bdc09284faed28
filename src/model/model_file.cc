#include "model/model_file.h"

#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/gguf_tables.h"
#include "model/hf_checkpoint.h"
#include "model/hub_cache.h"
#include "model/json_model.h"
#include "model/names.h"

namespace attnd::model {
namespace {

constexpr std::int64_t kMaxJsonBytes = std::int64_t{1} << 26;

absl::StatusOr<ModelTables> ReadFile(const std::string& path, OpenByName open, const ReadLimits& limits) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (absl::EndsWith(path, ".gguf")) return ReadGguf(open, name, limits);
  if (absl::EndsWith(path, ".json")) {
    const auto source = OpenWithin(open, name, limits);
    if (!source.ok()) return source.status();
    const auto text = ReadText(**source, kMaxJsonBytes);
    if (!text.ok()) return text.status();
    return ParseJsonModel(*text, limits);
  }
  return absl::InvalidArgumentError(kExpectedModel);
}

// The name of a path in messages: "." is the root.
std::string InWords(const std::string& place) { return place == "." ? "the model root" : place; }

// A folder that is neither a checkpoint nor a repository is most often a parent of one.
absl::StatusOr<ModelTables> ReadFolder(const Folder& folder, const ReadLimits& limits) {
  if (folder.KindOf("config.json") == Folder::Kind::kNothing) {
    const absl::StatusOr<std::vector<std::string>> names = folder.List();
    for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
      if (HubRepository(name).empty()) continue;
      return absl::InvalidArgumentError(
          "the folder is the Hub's cache: let it be the model root, or load one of its folders models--*");
    }
  }
  return ReadHfCheckpoint([&folder](const std::string& name) { return folder.OpenFile(name); }, limits);
}

// Reads the opened entry at `path`. A repository's folder has been replaced by its snapshot.
absl::StatusOr<ModelTables> ReadEntry(const Folder& root, const Folder::Entry& entry, const std::string& path,
                                      const ReadLimits& limits) {
  const auto* folder = std::get_if<Folder>(&entry);
  // A file's siblings are those of its own path, not of a link's target.
  const std::string parent = path.substr(0, path.rfind('/') + 1);
  const auto open = [&](const std::string& name) { return root.OpenFile(parent + name); };
  auto contents = folder != nullptr ? ReadFolder(*folder, limits) : ReadFile(path, open, limits);
  if (!contents.ok()) return Annotate(contents.status(), InWords(path));
  return contents;
}

}  // namespace

absl::StatusOr<ModelTables> ReadModel(const Folder& root, const std::string& path, const ReadLimits& limits) {
  const absl::StatusOr<Folder::Entry> entry = root.Open(path);
  if (!entry.ok()) return entry.status();
  const auto* folder = std::get_if<Folder>(&*entry);
  if (folder == nullptr || !IsHubRepository(*folder)) return ReadEntry(root, *entry, path, limits);
  const absl::StatusOr<std::string> snapshot = HubSnapshot(*folder);
  if (!snapshot.ok()) return Annotate(snapshot.status(), InWords(path));
  const std::string place = path == "." ? *snapshot : absl::StrCat(path, "/", *snapshot);
  const absl::StatusOr<Folder::Entry> in_snapshot = root.Open(place);
  if (!in_snapshot.ok()) return in_snapshot.status();
  return ReadEntry(root, *in_snapshot, place, limits);
}

}  // namespace attnd::model
