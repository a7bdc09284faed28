#include "server/session/session_shape.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "errors/field_error.h"
#include "server/attention/bias.h"
#include "server/attention/dtype.h"
#include "server/attention/numbers.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "tensor/dtype.h"

namespace attnd::server {
namespace {

using errors::Under;

absl::Status CheckRange(absl::string_view field, std::int64_t value, std::int64_t lowest, std::int64_t highest) {
  return Refusal(contract::CheckRange(field, value, lowest, highest));
}

bool HasBias(const v1::SessionLayer& layer) {
  return layer.kind() == v1::SESSION_LAYER_KIND_SELF && layer.bias() != v1::BIAS_NONE;
}

// The bias of a self layer, which is causal.
absl::StatusOr<kernel::BiasView> BiasOf(const v1::SessionLayer& layer, const model::Model& model) {
  ATTND_ASSIGN_OR_RETURN(const model::Model::Found found, model.FindTable(layer.table()));
  if (found.table->heads() != layer.heads()) {
    return InvalidField("heads",
                        absl::StrCat(found.table->heads(), " (the heads of table \"", std::string(found.name),
                                     "\" of model \"", model.name(), "\")"),
                        layer.heads());
  }
  return ViewOf(found.table->offset_form(), 0);
}

absl::StatusOr<SessionLayer> CheckLayer(const v1::SessionLayer& asked, const Limits& limits,
                                        const model::Model* model) {
  SessionLayer layer{};
  layer.is_self = asked.kind() == v1::SESSION_LAYER_KIND_SELF;
  layer.heads = asked.heads();
  layer.kept.kv_heads = asked.kv_heads() == 0 ? asked.heads() : asked.kv_heads();
  layer.kept.head_dim = asked.head_dim();
  layer.kept.value_head_dim = asked.value_head_dim() == 0 ? asked.head_dim() : asked.value_head_dim();
  ATTND_RETURN_IF_ERROR(CheckRange("heads", layer.heads, 1, limits.max_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("kv_heads", layer.kept.kv_heads, 1, layer.heads));
  ATTND_RETURN_IF_ERROR(CheckRange("head_dim", layer.kept.head_dim, 1, limits.max_head_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("value_head_dim", layer.kept.value_head_dim, 1, limits.max_head_dim));
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckKeyHeads(layer.heads, layer.kept.kv_heads)));
  layer.scale = asked.has_scale() ? asked.scale() : 1.0F;
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckScale(layer.scale)));
  if (asked.bias() != v1::BIAS_UNSPECIFIED && asked.bias() != v1::BIAS_NONE) {
    return InvalidField("bias", contract::kBiases, static_cast<int>(asked.bias()));
  }
  if (HasBias(asked)) {
    ATTND_ASSIGN_OR_RETURN(layer.bias, BiasOf(asked, *model));
  } else if (!asked.table().empty()) {
    return InvalidField("table", "none for a layer without a bias", absl::StrCat("\"", asked.table(), "\""));
  }
  return layer;
}

// The sequences kept for the self (or cross) layers; nullopt without such layers.
absl::StatusOr<std::optional<KeptSequences>> CheckKept(const std::vector<SessionLayer>& layers, bool self,
                                                       tensor::DType dtype, std::int64_t sequences,
                                                       std::int64_t most_tokens) {
  std::vector<cache::LayerShape> shapes;
  for (const SessionLayer& layer : layers) {
    if (layer.is_self == self) shapes.push_back(layer.kept);
  }
  if (shapes.empty()) return std::optional<KeptSequences>();
  const absl::Status too_much =
      FieldError(absl::StatusCode::kResourceExhausted, "layers", "keys and values that a machine can hold",
                 absl::StrCat(sequences, " x ", most_tokens, " tokens of ", shapes.size(), " layers"));
  std::optional<cache::PageShape> pages = cache::PageShape::Make(shapes, dtype);
  const std::optional<reservation::KeptBytes> bytes = reservation::BytesOfKept(shapes, dtype, sequences, most_tokens);
  if (!pages.has_value() || !bytes.has_value()) return too_much;
  return std::optional(KeptSequences{*std::move(pages), sequences, most_tokens, *bytes});
}

absl::StatusOr<std::vector<std::int64_t>> RowSources(const v1::SessionOpen& open) {
  const std::int64_t rows = open.rows(), sources = open.sources();
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckEachSequence("row_sources", SpanOf(open.row_sources()), rows, 0,
                                                            std::max(sources, INT64_C(1)) - 1)));
  if (!open.row_sources().empty())
    return std::vector<std::int64_t>(open.row_sources().begin(), open.row_sources().end());
  std::vector<std::int64_t> row_sources;
  if (sources == 0) return row_sources;
  if (rows % sources != 0) {
    return InvalidField("sources", absl::StrCat("a divisor of rows, which is ", rows, ", or row_sources"), sources);
  }
  for (std::int64_t row = 0; row < rows; ++row) row_sources.push_back(row / (rows / sources));
  return row_sources;
}

absl::StatusOr<SessionShape> Check(const v1::SessionOpen& open, const Limits& limits, const model::Registry& registry) {
  SessionShape shape{};
  shape.rows = open.rows();
  shape.sources = open.sources();
  // Checked first: each row takes memory here, before any is reserved in the ledger.
  ATTND_RETURN_IF_ERROR(CheckRange("rows", shape.rows, 1, std::min(limits.max_dim, reservation::kMostRows)));
  if (open.layers_size() < 1 || open.layers_size() > reservation::kMostLayers) {
    return InvalidField("layers", absl::StrCat("1 to ", reservation::kMostLayers, " layers"), open.layers_size());
  }
  bool self = false, cross = false, biased = false;
  for (int i = 0; i < open.layers_size(); ++i) {
    const v1::SessionLayer& layer = open.layers(i);
    if (layer.kind() != v1::SESSION_LAYER_KIND_SELF && layer.kind() != v1::SESSION_LAYER_KIND_CROSS) {
      return InvalidField(absl::StrCat("layers[", i, "].kind"), "SESSION_LAYER_KIND_SELF or SESSION_LAYER_KIND_CROSS",
                          static_cast<int>(layer.kind()));
    }
    self = self || layer.kind() == v1::SESSION_LAYER_KIND_SELF;
    cross = cross || layer.kind() == v1::SESSION_LAYER_KIND_CROSS;
    biased = biased || HasBias(layer);
  }
  ATTND_RETURN_IF_ERROR(CheckRange("sources", shape.sources, cross ? 1 : 0, cross ? shape.rows : 0));
  ATTND_RETURN_IF_ERROR(CheckRange("max_tokens", open.max_tokens(), self ? 1 : 0, self ? limits.max_dim : 0));
  ATTND_RETURN_IF_ERROR(
      CheckRange("max_source_tokens", open.max_source_tokens(), cross ? 1 : 0, cross ? limits.max_dim : 0));
  if (biased) {
    ATTND_ASSIGN_OR_RETURN(shape.model, registry.Find(open.model(), open.version()));
  } else {
    if (!open.model().empty()) {
      return InvalidField("model", "none, as no layer has a bias", absl::StrCat("\"", open.model(), "\""));
    }
    if (open.version() != 0) return InvalidField("version", "none, as no layer has a bias", open.version());
  }
  std::int64_t selves = 0, crosses = 0;
  for (int i = 0; i < open.layers_size(); ++i) {
    absl::StatusOr<SessionLayer> layer = CheckLayer(open.layers(i), limits, shape.model.get());
    if (!layer.ok()) return Under(absl::StrCat("layers[", i, "]."), layer.status());
    layer->place = layer->is_self ? selves++ : crosses++;
    shape.layers.push_back(*std::move(layer));
  }
  const std::optional<tensor::DType> dtype = EngineDtype(open.dtype());
  if (!dtype.has_value()) return InvalidField("dtype", contract::kDtypes, static_cast<int>(open.dtype()));
  ATTND_ASSIGN_OR_RETURN(shape.row_sources, RowSources(open));
  ATTND_ASSIGN_OR_RETURN(shape.self, CheckKept(shape.layers, true, *dtype, shape.rows, open.max_tokens()));
  ATTND_ASSIGN_OR_RETURN(shape.cross, CheckKept(shape.layers, false, *dtype, shape.sources, open.max_source_tokens()));
  return shape;
}

}  // namespace

std::int64_t SessionShape::reserved_bytes() const {
  const auto bytes_of = [](const std::optional<KeptSequences>& kept) {
    return kept.has_value() ? std::optional(kept->bytes) : std::nullopt;
  };
  return reservation::SessionBytes(rows, bytes_of(self), bytes_of(cross)).total();
}

absl::StatusOr<SessionShape> CheckOpen(const v1::SessionOpen& open, const Limits& limits,
                                       const model::Registry& registry) {
  absl::StatusOr<SessionShape> shape = Check(open, limits, registry);
  if (!shape.ok()) return Under("open.", shape.status());
  return shape;
}

}  // namespace attnd::server
