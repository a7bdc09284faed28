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

absl::StatusOr<ModelTables> ReadFile(const std::string& path, std::unique_ptr<files::ByteSource> source,
                                     const ReadLimits& limits) {
  if (source->size() > limits.max_file_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("has ", source->size(), " bytes, more than max_model_file_bytes, ", limits.max_file_bytes));
  }
  if (absl::EndsWith(path, ".gguf")) return ReadGguf(std::move(source), limits);
  if (absl::EndsWith(path, ".json")) {
    const auto text = ReadText(*source, kMaxJsonBytes);
    if (!text.ok()) return text.status();
    return ParseJsonModel(*text, limits);
  }
  return absl::InvalidArgumentError("expected a Hugging Face checkpoint folder, a .gguf file or a .json file");
}

absl::StatusOr<ModelTables> ReadEntry(const std::string& path, Folder::Entry entry, const ReadLimits& limits) {
  if (auto* file = std::get_if<std::unique_ptr<files::ByteSource>>(&entry)) {
    return ReadFile(path, std::move(*file), limits);
  }
  const Folder& folder = std::get<Folder>(entry);
  return ReadHfCheckpoint([&folder](const std::string& name) { return folder.OpenFile(name); }, limits);
}

}  // namespace

absl::StatusOr<ModelTables> ReadModel(const Folder& root, const std::string& path, const ReadLimits& limits) {
  absl::StatusOr<Folder::Entry> entry = root.Open(path);
  if (!entry.ok()) return entry.status();
  auto contents = ReadEntry(path, *std::move(entry), limits);
  if (!contents.ok()) return Annotate(contents.status(), path);
  return contents;
}

}  // namespace attnd::model
