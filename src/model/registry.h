// The registry: the loaded models, by name.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "model/content_hash.h"
#include "model/model.h"
#include "model/model_memory.h"
#include "model/model_root.h"

namespace attnd::model {

struct RegistryOptions {
  std::string model_root;  // empty: loading from files is FAILED_PRECONDITION
  std::int64_t max_models = 1000;
  std::int64_t max_table_values = std::int64_t{1} << 24;      // heads times buckets, and heads times distinct offsets
  std::int64_t max_model_file_bytes = std::int64_t{1} << 36;  // largest file that is opened; only tables are read
  std::int64_t max_model_bytes = std::numeric_limits<std::int64_t>::max();        // of one model's tables, in memory
  std::int64_t max_total_model_bytes = std::numeric_limits<std::int64_t>::max();  // of all tables together
  std::function<void(const std::string&)> log;  // gets a line for each entry that LoadRoot skips or fails to load
  // For tests. Called on the thread that loads, reloads or uploads a model, without a lock, when its new tables are
  // made and before they become current. Changes made meanwhile come first.
  std::function<void()> before_change;
};

// An entry of the model root that could not be loaded at the start.
struct FailedModel {
  std::string name;    // that it would have; may be invalid as a model's name
  std::string path;    // below the model root; "." for the root itself
  std::string reason;  // one line
};

// Immutable snapshots by name. Reading and parsing happen outside the lock, so a load, reload or unload never blocks a
// Find or another load. A call keeps the snapshot that it found, whatever happens later. Version numbers of a name only
// grow, even across an unload. Thread-safe.
class Registry {
 public:
  explicit Registry(RegistryOptions options);
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // Adds the models compiled into this binary ("book", "t5-tiny").
  absl::Status AddEmbedded();

  // Loads everything directly under the model root, or the root itself if it is a model's folder: each folder under its
  // name, each file under its stem, and what comes from the Hub's cache under its repository's name. An entry that
  // cannot be loaded is logged, and listed by Failed() unless it is a GGUF shard after the first. An entry that does
  // not look like a model is only logged. Returns the number of loaded models. Errors: those of ModelRoot::Open and
  // List.
  absl::StatusOr<std::int64_t> LoadRoot();

  // The entries that could not be loaded at the start, by path, without those loaded since.
  std::vector<FailedModel> Failed() const;

  // For the errors of the functions below, see ModelService in proto/attnd/v1/model.proto. Their fields are "model",
  // "version", "path", "table.name", "table.heads" and "table".

  // version 0: the current one.
  absl::StatusOr<std::shared_ptr<const Model>> Find(std::string_view name, std::uint64_t version = 0) const;

  // Up to `count` models in order of name, starting after the name `after`.
  std::vector<std::shared_ptr<const Model>> List(std::string_view after, std::int64_t count) const;

  // An empty `name` means the path's folder name or file stem, or the repository's name (ModelRoot::NameOf). "." is the
  // root.
  absl::StatusOr<std::shared_ptr<const Model>> Load(std::string_view name, std::string_view path);
  absl::StatusOr<std::shared_ptr<const Model>> Reload(std::string_view name);
  absl::Status Unload(std::string_view name);
  absl::StatusOr<std::shared_ptr<const Model>> Upload(std::string_view name, std::string_view table_name,
                                                      bias::BiasTable table, bool replace);

  // A ticket for a table to upload, so that the table counts from before it is made. Upload counts a table made without
  // one.
  bias::TableTicket NewTicket() const { return memory_.NewVersion().NewTicket(); }

  // Memory of all tables: of loaded models, of old versions that calls still use, and of models that are being read.
  std::int64_t table_bytes() const { return memory_.used_bytes(); }

 private:
  struct Entry {
    std::shared_ptr<const Model> model;
    std::optional<std::string> path;  // below the model root; only for a model loaded from there
    TableHashes hashes;
    std::uint64_t read_order = 0;  // when reading began: a later read is newer, whichever ends first
  };

  // Errors: FAILED_PRECONDITION.
  absl::StatusOr<ModelRoot> OpenRoot() const;
  // Reads the model at `path`, outside the lock. If it cannot be read, the error blames `field` of the request.
  absl::StatusOr<ModelTables> Read(absl::string_view field, const ModelRoot& root, const std::string& path) const;
  void BeforeChange() const;
  absl::Status NotLoaded(std::string_view name) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRoom(std::string_view name) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Counts the tables that were made without a ticket.
  absl::Status Count(ModelTables& contents) const;
  // Hashes a model that has been read and adds it under a new name.
  absl::StatusOr<std::shared_ptr<const Model>> Add(const std::string& name, const std::string& source,
                                                   std::optional<std::string> path,
                                                   absl::StatusOr<ModelTables> contents);
  std::shared_ptr<const Model> MakeCurrent(const std::string& name, const std::string& source,
                                           std::optional<std::string> path, std::uint64_t read_order,
                                           ModelTables contents, TableHashes hashes, std::string content_hash)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RegistryOptions options_;
  const ModelMemory memory_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry, std::less<>> models_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::uint64_t, std::less<>> last_version_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t reads_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, FailedModel> failed_ ABSL_GUARDED_BY(mutex_);  // by path
};

}  // namespace attnd::model
