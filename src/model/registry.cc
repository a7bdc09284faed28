#include "model/registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "contract/request.h"
#include "errors/field_error.h"
#include "model/content_hash.h"
#include "model/embedded.h"
#include "model/model_root.h"
#include "model/names.h"
#include "model/tables.h"

namespace attnd::model {
namespace {

using ModelPtr = std::shared_ptr<const Model>;

constexpr char kEmbedded[] = "embedded";
constexpr char kUpload[] = "upload";

ReadLimits LimitsOf(const RegistryOptions& options, const ModelMemory::Version* memory = nullptr) {
  return {options.max_table_values, options.max_model_file_bytes, memory};
}

// The reason why loading `path` failed, in one line and without the path.
std::string ReasonOf(const absl::Status& status, absl::string_view path) {
  const std::optional<contract::Fault> fault = errors::FaultOf(status);
  const std::string reason = fault.has_value() && fault->field == "path" ? fault->got : std::string(status.message());
  return std::string(absl::StripPrefix(reason, absl::StrCat(path, ": ")));
}

}  // namespace

Registry::Registry(RegistryOptions options)
    : options_(std::move(options)), memory_(options_.max_model_bytes, options_.max_total_model_bytes) {}

void Registry::BeforeChange() const {
  if (options_.before_change) options_.before_change();
}

absl::Status Registry::NotLoaded(std::string_view name) const {
  std::string got = Quoted(name);
  for (const auto& [path, failed] : failed_) {
    if (failed.name == name) absl::StrAppend(&got, ", which could not be loaded at the start (ListModels says why)");
  }
  return errors::FieldError(absl::StatusCode::kNotFound, "model", "a loaded model", got);
}

absl::StatusOr<ModelPtr> Registry::Find(std::string_view name, std::uint64_t version) const {
  if (absl::Status valid = CheckModelName(name); !valid.ok()) return valid;
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = models_.find(name);
  if (found == models_.end()) return NotLoaded(name);
  const ModelPtr& current = found->second.model;
  if (version == 0 || version == current->version()) return current;
  return errors::FieldError(absl::StatusCode::kNotFound, "version",
                            absl::StrCat(current->version(), " (the current version of model ", Quoted(name), ") or 0"),
                            absl::StrCat(version));
}

std::vector<ModelPtr> Registry::List(std::string_view after, std::int64_t count) const {
  std::vector<ModelPtr> models;
  absl::ReaderMutexLock lock(&mutex_);
  for (auto it = models_.upper_bound(after); it != models_.end() && static_cast<std::int64_t>(models.size()) < count;
       ++it) {
    models.push_back(it->second.model);
  }
  return models;
}

absl::StatusOr<ModelRoot> Registry::OpenRoot() const {
  if (options_.model_root.empty()) {
    return absl::FailedPreconditionError("the server has no model root: models cannot be loaded from files");
  }
  absl::StatusOr<ModelRoot> root = ModelRoot::Open(options_.model_root);
  if (!root.ok()) return absl::FailedPreconditionError(absl::StrCat("model root: ", root.status().message()));
  return root;
}

absl::StatusOr<ModelTables> Registry::Read(absl::string_view field, const ModelRoot& root,
                                           const std::string& path) const {
  const ModelMemory::Version memory = memory_.NewVersion();
  absl::StatusOr<ModelTables> tables = root.Read(path, LimitsOf(options_, &memory));
  if (!tables.ok()) return errors::Blame(field, "a model that can be read", tables.status());
  return tables;
}

absl::Status Registry::CheckRoom(std::string_view name) const {
  if (models_.count(name) != 0) {
    return errors::FieldError(absl::StatusCode::kAlreadyExists, "model", "a name that no loaded model has",
                              Quoted(name));
  }
  if (static_cast<std::int64_t>(models_.size()) < options_.max_models) return absl::OkStatus();
  return errors::FieldError(absl::StatusCode::kResourceExhausted, "model",
                            absl::StrCat("one of at most ", options_.max_models, " models (max_models)"),
                            absl::StrCat("one more than the ", models_.size(), " that are loaded"));
}

ModelPtr Registry::MakeCurrent(const std::string& name, const std::string& source, std::optional<std::string> path,
                               std::uint64_t read_order, ModelTables contents, TableHashes hashes,
                               std::string content_hash) {
  const std::uint64_t version = ++last_version_[name];
  auto model =
      std::make_shared<const Model>(name, version, source, absl::Now(), std::move(contents), std::move(content_hash));
  models_[name] = Entry{model, std::move(path), std::move(hashes), read_order};
  return model;
}

absl::StatusOr<ModelPtr> Registry::Add(const std::string& name, const std::string& source,
                                       std::optional<std::string> path, absl::StatusOr<ModelTables> contents) {
  if (!contents.ok()) return contents.status();
  if (absl::Status counted = Count(*contents); !counted.ok()) return counted;
  TableHashes hashes = HashesOf(contents->tables);
  std::string hash = ContentHash(hashes);
  BeforeChange();
  absl::MutexLock lock(&mutex_);
  if (absl::Status room = CheckRoom(name); !room.ok()) return room;
  return MakeCurrent(name, source, std::move(path), ++reads_, *std::move(contents), std::move(hashes), std::move(hash));
}

absl::Status Registry::Count(ModelTables& contents) const {
  const ModelMemory::Version memory = memory_.NewVersion();
  for (auto& [name, table] : contents.tables) {
    if (absl::Status counted = table.CountIn(memory.NewTicket()); !counted.ok()) return counted;
  }
  return absl::OkStatus();
}

absl::Status Registry::AddEmbedded() {
  for (const EmbeddedFile& file : EmbeddedFiles()) {
    const auto added = Add(std::string(file.name), kEmbedded, std::nullopt, ReadEmbedded(file));
    if (!added.ok()) return added.status();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::int64_t> Registry::LoadRoot() {
  const auto log = [this](const std::string& line) {
    if (options_.log) options_.log(line);
  };
  if (options_.model_root.empty()) return 0;
  const absl::StatusOr<ModelRoot> root = ModelRoot::Open(options_.model_root);
  if (!root.ok()) return root.status();
  const absl::StatusOr<ModelRoot::Entries> entries = root->List();
  if (!entries.ok()) return entries.status();
  for (const auto& [path, reason] : entries->others) log(absl::StrCat("skipped ", Quoted(path), ": ", reason));
  std::int64_t loaded = 0;
  for (const std::string& path : entries->models) {
    const auto model = Load("", path);
    if (model.ok()) {
      ++loaded;
      continue;
    }
    const std::string reason = ReasonOf(model.status(), path);
    if (IsFurtherShard(path)) {
      log(absl::StrCat("skipped ", Quoted(path), ": ", reason));
      continue;
    }
    log(absl::StrCat("not loaded ", Quoted(path), ": ", reason));
    absl::MutexLock lock(&mutex_);
    failed_[path] = FailedModel{root->NameOf(path), path, reason};
  }
  return loaded;
}

std::vector<FailedModel> Registry::Failed() const {
  std::vector<FailedModel> models;
  absl::ReaderMutexLock lock(&mutex_);
  models.reserve(failed_.size());
  for (const auto& [path, failed] : failed_) models.push_back(failed);
  return models;
}

absl::StatusOr<ModelPtr> Registry::Load(std::string_view name, std::string_view path) {
  const absl::StatusOr<std::string> normalized = NormalizePath(path);
  if (!normalized.ok()) return normalized.status();
  const absl::StatusOr<ModelRoot> root = OpenRoot();
  if (!root.ok()) return root.status();
  const std::string chosen = name.empty() ? root->NameOf(*normalized) : std::string(name);
  if (absl::Status valid = CheckModelName(chosen); !valid.ok()) return valid;
  {
    absl::ReaderMutexLock lock(&mutex_);
    if (absl::Status room = CheckRoom(chosen); !room.ok()) return room;
  }
  absl::StatusOr<ModelPtr> added = Add(chosen, *normalized, *normalized, Read("path", *root, *normalized));
  if (added.ok()) {
    absl::MutexLock lock(&mutex_);
    failed_.erase(*normalized);
    std::erase_if(failed_, [&chosen](const auto& entry) { return entry.second.name == chosen; });
  }
  return added;
}

absl::StatusOr<ModelPtr> Registry::Reload(std::string_view name) {
  if (absl::Status valid = CheckModelName(name); !valid.ok()) return valid;
  std::string path;
  std::uint64_t read_order = 0;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = models_.find(name);
    if (found == models_.end()) return NotLoaded(name);
    if (!found->second.path) {
      return errors::FieldError(absl::StatusCode::kFailedPrecondition, "model", "one that came from a file",
                                absl::StrCat(Quoted(name), " (", found->second.model->source(), ")"));
    }
    path = *found->second.path;
    read_order = ++reads_;
  }
  const absl::StatusOr<ModelRoot> root = OpenRoot();
  if (!root.ok()) return root.status();
  absl::StatusOr<ModelTables> contents = Read("model", *root, path);
  if (!contents.ok()) return contents.status();
  TableHashes hashes = HashesOf(contents->tables);
  std::string hash = ContentHash(hashes);
  BeforeChange();

  ModelPtr old;  // released after the lock
  absl::MutexLock lock(&mutex_);
  const auto found = models_.find(name);
  if (found == models_.end() || found->second.path != path) {
    return errors::FieldError(absl::StatusCode::kNotFound, "model", "a model that stays loaded while it is read",
                              absl::StrCat(Quoted(name), ", which was unloaded"));
  }
  old = found->second.model;
  if (found->second.read_order > read_order) return old;  // a reload that began later was faster
  return MakeCurrent(std::string(name), path, path, read_order, *std::move(contents), std::move(hashes),
                     std::move(hash));
}

absl::Status Registry::Unload(std::string_view name) {
  if (absl::Status valid = CheckModelName(name); !valid.ok()) return valid;
  ModelPtr old;  // released after the lock
  absl::MutexLock lock(&mutex_);
  const auto found = models_.find(name);
  if (found == models_.end()) return NotLoaded(name);
  old = std::move(found->second.model);
  models_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<ModelPtr> Registry::Upload(std::string_view name, std::string_view table_name, bias::BiasTable table,
                                          bool replace) {
  if (absl::Status valid = CheckModelName(name); !valid.ok()) return valid;
  const std::string chosen =
      table_name.empty() ? (table.bidirectional() ? "encoder" : "decoder") : std::string(table_name);
  if (absl::Status counted = table.CountIn(NewTicket()); !counted.ok()) return counted;
  const std::string table_hash = TableHash(table);
  // The new version shares the tables of the old one. It is made outside the lock; if another upload comes first,
  // repeat with the version that it made.
  while (true) {
    ModelPtr base;
    TableHashes hashes;
    {
      absl::ReaderMutexLock lock(&mutex_);
      const auto found = models_.find(name);
      if (found != models_.end()) {
        base = found->second.model;
        hashes = found->second.hashes;
      }
    }
    ModelTables contents;
    if (base != nullptr) {
      if (base->source() != kUpload || base->contents().format != kUpload) {
        return errors::FieldError(absl::StatusCode::kAlreadyExists, "model", "a new one, or one made by uploads",
                                  absl::StrCat(Quoted(name), " (", base->source(), ")"));
      }
      contents = base->contents();
      if (!replace && contents.tables.count(chosen) != 0) {
        return errors::FieldError(absl::StatusCode::kAlreadyExists, "table.name",
                                  absl::StrCat("one that model ", Quoted(name), " has not, or replace to be set"),
                                  Quoted(chosen));
      }
      contents.tables.erase(chosen);
    }
    if (absl::Status fits = memory_.CheckModel(contents.bytes(), table.bytes()); !fits.ok()) return fits;
    contents.format = kUpload;
    if (absl::Status added = AddTable(chosen, table, LimitsOf(options_), contents); !added.ok()) return added;
    hashes[chosen] = table_hash;
    std::string hash = ContentHash(hashes);
    BeforeChange();

    absl::MutexLock lock(&mutex_);
    const auto found = models_.find(name);
    const ModelPtr current = found == models_.end() ? nullptr : found->second.model;
    if (current != base) continue;
    if (base == nullptr) {
      if (absl::Status room = CheckRoom(name); !room.ok()) return room;
    }
    return MakeCurrent(std::string(name), kUpload, std::nullopt, ++reads_, std::move(contents), std::move(hashes),
                       std::move(hash));
  }
}

}  // namespace attnd::model
