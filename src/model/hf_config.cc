#include "model/hf_config.h"

#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "files/python_json.h"
#include "model/said.h"
#include "nlohmann/json.hpp"

namespace attnd::model {
namespace {

using Json = nlohmann::json;

constexpr int kMaxConfigDepth = 500;
constexpr std::int64_t kMaxCount = std::int64_t{1} << 31;
constexpr std::int64_t kMaxLayers = 1000;

// A field from 1 to `max`. If it is missing or null: `fallback`, or an error if there is no fallback.
absl::StatusOr<std::int64_t> Count(const Json& config, const char* field, std::int64_t max,
                                   std::optional<std::int64_t> fallback) {
  const auto found = config.find(field);
  if (found == config.end() || found->is_null()) {
    if (fallback) return *fallback;
    return absl::InvalidArgumentError(absl::StrCat(field, ": missing"));
  }
  const bool valid = found->is_number_unsigned() && found->get<std::uint64_t>() >= 1 &&
                     found->get<std::uint64_t>() <= static_cast<std::uint64_t>(max);
  if (valid) return found->get<std::int64_t>();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": expected an integer from 1 to ", max, ", got ", Said(*found)));
}

absl::StatusOr<std::string> ModelType(const Json& config) {
  const auto found = config.find("model_type");
  if (found == config.end()) return absl::InvalidArgumentError("model_type: missing");
  for (const char* known : {"t5", "mt5", "umt5"}) {
    if (*found == known) return std::string(known);
  }
  return absl::InvalidArgumentError(absl::StrCat("model_type: expected t5, mt5 or umt5, got ", Said(*found)));
}

}  // namespace

absl::StatusOr<HfConfig> ParseHfConfig(std::string_view text) {
  const absl::StatusOr<files::JsonDocument> json =
      files::ParsePythonJson(text, kMaxConfigDepth, files::DuplicateKeys::kLastCounts);
  if (!json.ok()) return json.status();
  if (!json->is_object()) return absl::InvalidArgumentError("expected an object");
  HfConfig config;
  absl::StatusOr<std::string> model_type = ModelType(*json);
  if (!model_type.ok()) return model_type.status();
  config.model_type = *std::move(model_type);

  struct Field {
    const char* name;
    std::int64_t* value;
    std::int64_t max;
    std::optional<std::int64_t> fallback;
  };
  const std::array<Field, 4> fields = {{
      {"num_heads", &config.num_heads, kMaxCount, std::nullopt},
      {"relative_attention_num_buckets", &config.num_buckets, kMaxCount, 32},
      {"relative_attention_max_distance", &config.max_distance, kMaxCount, 128},
      {"num_layers", &config.encoder_layers, kMaxLayers, std::nullopt},
  }};
  for (const Field& field : fields) {
    const absl::StatusOr<std::int64_t> count = Count(*json, field.name, field.max, field.fallback);
    if (!count.ok()) return count.status();
    *field.value = *count;
  }
  const auto decoder_layers = Count(*json, "num_decoder_layers", kMaxLayers, config.encoder_layers);
  if (!decoder_layers.ok()) return decoder_layers.status();
  config.decoder_layers = *decoder_layers;
  return config;
}

}  // namespace attnd::model
