// A model: an immutable set of named bias tables.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bias/bias_table.h"

namespace attnd::model {

// What a reader finds in a source, before it has a name or a version.
struct ModelTables {
  std::map<std::string, bias::BiasTable> tables;  // by name: "decoder", "encoder", "decoder.N", "encoder.N"
  std::string format;                             // "huggingface", "gguf", "json", "upload"
  std::string architecture;                       // "t5", "mt5", "umt5" or what the source says; may be empty

  // What the tables hold in memory.
  std::int64_t bytes() const;
};

// One version of a loaded model. Immutable, shared by the calls that use it. Thread-safe.
class Model {
 public:
  // `content_hash` is that of the contents' tables (model/content_hash.h); hashing takes long enough to be kept apart.
  Model(std::string name, std::uint64_t version, std::string source, absl::Time loaded_at, ModelTables contents,
        std::string content_hash);

  const std::string& name() const { return name_; }
  std::uint64_t version() const { return version_; }
  const std::string& source() const { return source_; }  // "embedded", "upload", or the path below the model root
  absl::Time loaded_at() const { return loaded_at_; }
  const ModelTables& contents() const { return contents_; }
  // SHA-256, in hex, of the tables' names, rules and values: see model/content_hash.h.
  const std::string& content_hash() const { return content_hash_; }

  // A named table with its resolved name: `name` empty means the causal decoder's ("decoder", or "decoder.0" where each
  // layer has its own; a model with a single table: that one). "decoder.N" of a shared table is the shared one. Errors:
  // NOT_FOUND, listing the tables there are.
  struct Found {
    std::string_view name;
    const bias::BiasTable* table;
  };
  absl::StatusOr<Found> FindTable(std::string_view name) const;

 private:
  std::string name_;
  std::uint64_t version_;
  std::string source_;
  absl::Time loaded_at_;
  ModelTables contents_;
  std::string content_hash_;
};

}  // namespace attnd::model
