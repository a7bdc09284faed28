#include "model/hf_checkpoint.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "files/python_json.h"
#include "files/safetensors.h"
#include "model/hf_config.h"
#include "model/names.h"
#include "nlohmann/json.hpp"

namespace attnd::model {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr std::int64_t kMaxConfigBytes = std::int64_t{1} << 20;
constexpr std::int64_t kMaxIndexBytes = std::int64_t{1} << 25;
constexpr int kIndexDepth = 500;

absl::StatusOr<HfConfig> ReadConfig(OpenByName open, const ReadLimits& limits) {
  auto source = OpenWithin(open, kConfig, limits);
  if (absl::IsNotFound(source.status())) {
    return absl::InvalidArgumentError("the folder has no config.json: expected a Hugging Face checkpoint");
  }
  if (!source.ok()) return source.status();
  const auto text = ReadText(**source, kMaxConfigBytes);
  if (!text.ok()) return Annotate(text.status(), kConfig);
  auto config = ParseHfConfig(*text);
  if (!config.ok()) return Annotate(config.status(), kConfig);
  return config;
}

// A checkpoint's tensors, in one file or several. A shard is opened when one of its tensors is first read.
class Weights {
 public:
  static absl::StatusOr<Weights> Open(OpenByName open, const ReadLimits& limits) {
    Weights weights(open, limits);
    auto single = weights.OpenTensors(kSingleFile);
    if (single.ok()) {
      for (const auto& [name, tensor] : (*single)->tensors()) weights.file_of_.emplace(name, kSingleFile);
      return weights;
    }
    if (!absl::IsNotFound(single.status())) return single.status();
    if (absl::Status index = weights.ReadIndex(); !index.ok()) return index;
    return weights;
  }

  bool Has(const std::string& name) const { return file_of_.count(name) != 0; }

  bool HasAnyUnder(const std::string& prefix) const {
    const auto first = file_of_.lower_bound(prefix);
    return first != file_of_.end() && absl::StartsWith(first->first, prefix);
  }

  // A tensor [num_buckets, num_heads], and the ticket for its bytes.
  struct Table {
    std::vector<float> values;
    bias::TableTicket ticket;
  };
  absl::StatusOr<Table> ReadTable(const std::string& name, const HfConfig& config) {
    const std::string& file_name = file_of_.at(name);
    if (!IsShardName(file_name)) {
      return absl::InvalidArgumentError(absl::StrCat(kIndex, ": weight_map: ", Quoted(name),
                                                     ": expected the name of a .safetensors file in the same folder"));
    }
    auto file = OpenTensors(file_name);
    if (absl::IsNotFound(file.status())) {
      return absl::InvalidArgumentError(absl::StrCat(kIndex, ": names ", Quoted(file_name), ", which is missing"));
    }
    if (!file.ok()) return file.status();
    const files::StoredTensor* stored = (*file)->Find(name);
    const std::string where = absl::StrCat(Quoted(file_name), ": tensor ", Quoted(name));
    if (stored == nullptr) return absl::InvalidArgumentError(absl::StrCat(where, ": missing"));
    if (stored->shape != std::vector<std::int64_t>{config.num_buckets, config.num_heads}) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": shape: expected [", config.num_buckets, ", ",
                                                     config.num_heads, "] (buckets and heads in config.json), got [",
                                                     absl::StrJoin(stored->shape, ", "), "]"));
    }
    if (stored->elements > limits_.max_table_values) {
      return absl::ResourceExhaustedError(absl::StrCat(
          where, ": has ", stored->elements, " values, more than max_table_values, ", limits_.max_table_values));
    }
    absl::StatusOr<bias::TableTicket> ticket = limits_.TicketFor(stored->elements);
    if (!ticket.ok()) return Annotate(ticket.status(), where);
    auto floats = (*file)->ReadFloats(*stored);
    if (!floats.ok()) return Annotate(floats.status(), where);
    return Table{*std::move(floats), *std::move(ticket)};
  }

 private:
  Weights(OpenByName open, const ReadLimits& limits) : open_(open), limits_(limits) {}

  absl::StatusOr<const files::SafetensorsFile*> OpenTensors(const std::string& name) {
    const auto known = files_.find(name);
    if (known != files_.end()) return &known->second;
    auto source = OpenWithin(open_, name, limits_);
    if (!source.ok()) return source.status();
    auto file = files::SafetensorsFile::Open(*std::move(source));
    if (!file.ok()) return Annotate(file.status(), Quoted(name));
    return &files_.emplace(name, *std::move(file)).first->second;
  }

  absl::Status ReadIndex() {
    auto source = OpenWithin(open_, kIndex, limits_);
    if (absl::IsNotFound(source.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat("the folder has neither ", kSingleFile, " nor ", kIndex, ": save the model as safetensors"));
    }
    if (!source.ok()) return source.status();
    const auto text = ReadText(**source, kMaxIndexBytes);
    if (!text.ok()) return Annotate(text.status(), kIndex);
    const auto json = files::ParsePythonJson(*text, kIndexDepth, files::DuplicateKeys::kRefused);
    if (!json.ok()) return Annotate(json.status(), kIndex);
    const auto map = json->find("weight_map");
    if (!json->is_object() || map == json->end() || !map->is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(kIndex, ": weight_map: expected an object"));
    }
    // Entries of tensors that are not read may be anything: ReadTable checks the file's name.
    for (const auto& [name, file] : map->items()) {
      file_of_.emplace(name, file.is_string() ? file.get<std::string>() : "");
    }
    return absl::OkStatus();
  }

  static bool IsShardName(const std::string& name) {
    return absl::EndsWith(name, ".safetensors") && name.front() != '.' && name.size() <= 255 &&
           name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
  }

  OpenByName open_;
  const ReadLimits limits_;
  std::map<std::string, std::string> file_of_;  // by tensor
  std::map<std::string, files::SafetensorsFile> files_;
};

// Reads the tables of one side, if the checkpoint has that side.
absl::Status ReadSide(const std::string& side, std::int64_t layers, const HfConfig& config, const ReadLimits& limits,
                      Weights& weights, ModelTables& contents) {
  // Models with an extra head on top, such as for classification, keep T5 under "transformer.".
  for (const std::string prefix : {"", "transformer."}) {
    const std::string blocks = absl::StrCat(prefix, side, ".block.");
    if (!weights.HasAnyUnder(blocks)) continue;
    for (std::int64_t layer = 0; layer < (config.table_per_layer() ? layers : 1); ++layer) {
      const std::string name = absl::StrCat(blocks, layer, ".layer.0.SelfAttention.relative_attention_bias.weight");
      if (!weights.Has(name)) return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), ": missing"));
      auto read = weights.ReadTable(name, config);
      if (!read.ok()) return read.status();
      bias::T5Rule rule{config.num_buckets, config.max_distance, side == "encoder", std::move(read->values)};
      const std::string table = config.table_per_layer() ? absl::StrCat(side, ".", layer) : side;
      absl::Status added =
          AddTable(table, config.num_heads, std::move(rule), limits, std::move(read->ticket), contents);
      if (!added.ok()) return added;
    }
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelTables> ReadHfCheckpoint(OpenByName open, const ReadLimits& limits) {
  const absl::StatusOr<HfConfig> config = ReadConfig(open, limits);
  if (!config.ok()) return config.status();
  absl::StatusOr<Weights> weights = Weights::Open(open, limits);
  if (!weights.ok()) return weights.status();
  ModelTables contents;
  contents.format = "huggingface";
  contents.architecture = config->model_type;
  absl::Status read = ReadSide("encoder", config->encoder_layers, *config, limits, *weights, contents);
  if (read.ok()) read = ReadSide("decoder", config->decoder_layers, *config, limits, *weights, contents);
  if (!read.ok()) return read;
  if (contents.tables.empty()) {
    return absl::InvalidArgumentError("the checkpoint has neither encoder.block. nor decoder.block. tensors");
  }
  return contents;
}

}  // namespace attnd::model
