#include "model/model_file.h"

#include <memory>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/gguf_tables.h"
#include "model/hf_checkpoint.h"
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
  return absl::InvalidArgumentError("expected a Hugging Face checkpoint folder, a .gguf file or a .json file");
}

}  // namespace

absl::StatusOr<ModelTables> ReadModel(const Folder& root, const std::string& path, const ReadLimits& limits) {
  absl::StatusOr<Folder::Entry> entry = root.Open(path);
  if (!entry.ok()) return entry.status();
  const auto* folder = std::get_if<Folder>(&*entry);
  // A file's neighbours are those of its own name, not of what it may be a link to.
  const std::string parent = path.substr(0, path.rfind('/') + 1);
  const auto open = [&](const std::string& name) {
    return folder != nullptr ? folder->OpenFile(name) : root.OpenFile(parent + name);
  };
  auto contents = folder != nullptr ? ReadHfCheckpoint(open, limits) : ReadFile(path, open, limits);
  if (!contents.ok()) return Annotate(contents.status(), path);
  return contents;
}

}  // namespace attnd::model
