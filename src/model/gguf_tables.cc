#include "model/gguf_tables.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/gguf.h"
#include "model/gguf_split.h"
#include "model/names.h"

namespace attnd::model {
namespace {

constexpr std::int64_t kMaxDistance = 128;
constexpr char kBuckets[] = ".attention.relative_buckets_count";
constexpr char kTable[] = ".attn_rel_b.weight";

absl::StatusOr<GgufFile> OpenGguf(OpenByName open, const std::string& name, const ReadLimits& limits) {
  auto source = OpenWithin(open, name, limits);
  if (!source.ok()) return source.status();
  return GgufFile::Open(*std::move(source));
}

absl::StatusOr<std::int64_t> BucketsOf(const GgufFile& file) {
  const std::int64_t* buckets = nullptr;
  for (const auto& [key, value] : file.metadata()) {
    if (!absl::EndsWith(key, kBuckets)) continue;
    if (buckets != nullptr) return absl::InvalidArgumentError(absl::StrCat("*", kBuckets, ": given twice"));
    buckets = std::get_if<std::int64_t>(&value);
    if (buckets == nullptr) return absl::InvalidArgumentError(absl::StrCat("*", kBuckets, ": expected an integer"));
  }
  if (buckets == nullptr) return absl::InvalidArgumentError(absl::StrCat("*", kBuckets, ": missing"));
  return *buckets;
}

absl::StatusOr<std::string> ArchitectureOf(const GgufFile& file) {
  const auto found = file.metadata().find("general.architecture");
  if (found == file.metadata().end()) return "";
  const std::string* architecture = std::get_if<std::string>(&found->second);
  const auto printable = [](char c) { return c > ' ' && c <= '~'; };
  if (architecture == nullptr || architecture->size() > 64 ||
      !std::all_of(architecture->begin(), architecture->end(), printable)) {
    return absl::InvalidArgumentError("general.architecture: expected up to 64 printable ASCII characters");
  }
  return *architecture;
}

// A bias table read from its tensor.
struct Table {
  std::int64_t heads;
  std::vector<float> values;
  bias::TableTicket ticket;
};

absl::StatusOr<Table> ReadTable(const GgufFile& file, const GgufTensor& tensor, std::int64_t buckets,
                                const ReadLimits& limits) {
  if (tensor.dims.size() != 2 || tensor.dims[1] != buckets) {
    return absl::InvalidArgumentError(
        absl::StrCat("dims: expected [heads, ", buckets, "], got [", absl::StrJoin(tensor.dims, ", "), "]"));
  }
  if (tensor.elements > limits.max_table_values) {
    return absl::ResourceExhaustedError(
        absl::StrCat("has ", tensor.elements, " values, more than max_table_values, ", limits.max_table_values));
  }
  absl::StatusOr<bias::TableTicket> ticket = limits.TicketFor(tensor.elements);
  if (!ticket.ok()) return ticket.status();
  absl::StatusOr<std::vector<float>> values = file.ReadFloats(tensor);
  if (!values.ok()) return values.status();
  return Table{tensor.dims[0], *std::move(values), *std::move(ticket)};
}

// Reads the shards of a model, one after the other.
class Shards {
 public:
  Shards(std::int64_t buckets, const ReadLimits& limits) : buckets_(buckets), limits_(limits) {}

  // Adds the bias tables of one file. Errors: INVALID_ARGUMENT for a tensor that an earlier file has too; those of
  // ReadTable.
  absl::Status Add(const GgufFile& file) {
    for (const auto& [name, tensor] : file.tensors()) {
      if (!names_.insert(name).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), ": another shard has it, too"));
      }
      if (!absl::EndsWith(name, kTable)) continue;
      if (!absl::StartsWith(name, "enc.blk.") && !absl::StartsWith(name, "dec.blk.")) continue;
      if (tables_.size() >= kMaxTablesPerModel) {
        return absl::ResourceExhaustedError(absl::StrCat("the model has more than ", kMaxTablesPerModel, " tables"));
      }
      auto table = ReadTable(file, tensor, buckets_, limits_);
      if (!table.ok()) return Annotate(table.status(), absl::StrCat("tensor ", Quoted(name)));
      tables_.emplace(name, *std::move(table));
    }
    return absl::OkStatus();
  }

  std::int64_t tensors() const { return static_cast<std::int64_t>(names_.size()); }
  std::map<std::string, Table>& tables() { return tables_; }

 private:
  const std::int64_t buckets_;
  const ReadLimits limits_;
  std::set<std::string> names_;
  std::map<std::string, Table> tables_;  // by the tensor's name
};

// Adds the shards after the first.
absl::Status AddOthers(OpenByName open, const std::string& first, const GgufSplit& split, const ReadLimits& limits,
                       Shards& shards) {
  for (std::int64_t number = 1; number < split.count; ++number) {
    const absl::StatusOr<std::string> name = ShardName(first, number, split.count);
    if (!name.ok()) return name.status();
    const absl::StatusOr<GgufFile> file = OpenGguf(open, *name, limits);
    if (absl::IsNotFound(file.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat("split.count: expected ", split.count, " shards, but ", Quoted(*name), " is missing"));
    }
    if (!file.ok()) return Annotate(file.status(), Quoted(*name));
    const absl::StatusOr<GgufSplit> its = SplitOf(*file);
    if (!its.ok()) return Annotate(its.status(), Quoted(*name));
    if (its->number != number || its->count != split.count || its->tensors != split.tensors) {
      return absl::InvalidArgumentError(absl::StrCat(
          Quoted(*name), ": split.no, split.count, split.tensors.count: expected ", number, ", ", split.count, ", ",
          split.tensors, " as the first shard has it, got ", its->number, ", ", its->count, ", ", its->tensors));
    }
    if (absl::Status added = shards.Add(*file); !added.ok()) return Annotate(added, Quoted(*name));
  }
  if (shards.tensors() == split.tensors) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("split.tensors.count: expected ", split.tensors, " tensors in all shards, got ", shards.tensors()));
}

// The number of layers of a side, if the metadata has it. The decoder defaults to the encoder's.
std::optional<std::int64_t> LayersOf(const GgufFile& file, const std::string& architecture, bool decoder) {
  std::vector<std::string> keys = {absl::StrCat(architecture, ".block_count")};
  if (decoder) keys.insert(keys.begin(), absl::StrCat(architecture, ".decoder_block_count"));
  for (const std::string& key : keys) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) continue;
    if (const std::int64_t* layers = std::get_if<std::int64_t>(&found->second)) return *layers;
  }
  return std::nullopt;
}

// One side ("enc" or "dec") of the model.
struct Side {
  std::string prefix;
  std::string name;                    // of its tables
  std::optional<std::int64_t> layers;  // if known
  bool table_per_layer;                // never shared, even if only layer 0 has one
};

// Moves the tables of one side to `contents`.
absl::Status AddSide(const Side& side, std::int64_t buckets, const ReadLimits& limits,
                     std::map<std::string, Table>& tables, ModelTables& contents) {
  const auto tensor_name = [&](std::int64_t layer) { return absl::StrCat(side.prefix, ".blk.", layer, kTable); };
  const auto count = std::count_if(tables.begin(), tables.end(),
                                   [&](const auto& entry) { return absl::StartsWith(entry.first, side.prefix); });
  if (count == 0) return absl::OkStatus();
  const bool shared = count == 1 && !side.table_per_layer;
  const std::int64_t layers = shared ? 1 : side.layers.value_or(count);
  if (!shared && count > layers) {
    return absl::InvalidArgumentError(absl::StrCat("block_count: expected as many layers as have an ", side.prefix,
                                                   ".blk.N", kTable, ", ", count, ", got ", layers));
  }
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const auto found = tables.find(tensor_name(layer));
    if (found == tables.end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor_name(layer)), ": missing, though ", count,
                                                     " of ", layers, " layers have a table"));
    }
    bias::T5Rule rule{buckets, kMaxDistance, side.prefix == "enc", std::move(found->second.values)};
    const std::string table = shared ? side.name : absl::StrCat(side.name, ".", layer);
    absl::Status added =
        AddTable(table, found->second.heads, std::move(rule), limits, std::move(found->second.ticket), contents);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelTables> ReadGguf(OpenByName open, const std::string& name, const ReadLimits& limits) {
  const absl::StatusOr<GgufFile> file = OpenGguf(open, name, limits);
  if (!file.ok()) return file.status();
  const absl::StatusOr<GgufSplit> split = SplitOf(*file);
  if (!split.ok()) return split.status();
  if (split->number != 0) {
    return absl::InvalidArgumentError(absl::StrCat("split.no: expected 0, the first shard, which stands for all ",
                                                   split->count, ", got ", split->number));
  }
  const absl::StatusOr<std::int64_t> buckets = BucketsOf(*file);
  if (!buckets.ok()) return buckets.status();
  const absl::StatusOr<std::string> architecture = ArchitectureOf(*file);
  if (!architecture.ok()) return architecture.status();

  Shards shards(*buckets, limits);
  absl::Status read = shards.Add(*file);
  if (read.ok() && split->count > 1) read = AddOthers(open, name, *split, limits, shards);
  if (!read.ok()) return read;

  ModelTables contents;
  contents.format = "gguf";
  contents.architecture = *architecture;
  const bool table_per_layer = absl::StartsWith(*architecture, "umt5");
  for (const Side& side : {Side{"enc", "encoder", LayersOf(*file, *architecture, false), table_per_layer},
                           Side{"dec", "decoder", LayersOf(*file, *architecture, true), table_per_layer}}) {
    absl::Status added = AddSide(side, *buckets, limits, shards.tables(), contents);
    if (!added.ok()) return added;
  }
  if (contents.tables.empty()) {
    return absl::InvalidArgumentError("the file has no enc.blk.N.attn_rel_b.weight nor dec.blk.N.attn_rel_b.weight");
  }
  return contents;
}

}  // namespace attnd::model
