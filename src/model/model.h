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

// What a reader finds in a source, before it gets a name and a version.
struct ModelTables {
  std::map<std::string, bias::BiasTable> tables;  // by name: "decoder", "encoder", "decoder.N", "encoder.N"
  std::string format;                             // "huggingface", "gguf", "json", "upload"
  std::string architecture;                       // "t5", "mt5", "umt5" or what the source has; may be empty

  // Memory that the tables hold.
  std::int64_t bytes() const;
};

// One version of a loaded model: a snapshot, shared by the calls that use it. Immutable and thread-safe.
class Model {
 public:
  // `content_hash`: the ContentHash of the tables (model/content_hash.h). A parameter, because hashing takes too long
  // for here.
  Model(std::string name, std::uint64_t version, std::string source, absl::Time loaded_at, ModelTables contents,
        std::string content_hash);

  const std::string& name() const { return name_; }
  std::uint64_t version() const { return version_; }
  const std::string& source() const { return source_; }  // "embedded", "upload", or the path below the model root
  absl::Time loaded_at() const { return loaded_at_; }
  const ModelTables& contents() const { return contents_; }
  // SHA-256, in hex, of the tables' names, rules and values: see model/content_hash.h.
  const std::string& content_hash() const { return content_hash_; }

  // A table and its full name. An empty `name` means the causal decoder's table: "decoder", or "decoder.0" if each
  // layer has its own, or the only table of a model with one. "decoder.N" finds a shared "decoder". Errors: NOT_FOUND,
  // with a list of the tables.
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
