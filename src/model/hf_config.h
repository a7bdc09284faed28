// The part of a Hugging Face config.json that bias tables need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace attnd::model {

struct HfConfig {
  std::string model_type;       // "t5", "mt5" or "umt5"
  std::int64_t num_heads;       // from 1 on
  std::int64_t num_buckets;     // relative_attention_num_buckets; 32 where the file lacks it
  std::int64_t max_distance;    // relative_attention_max_distance; 128 where the file lacks it, as old ones do
  std::int64_t encoder_layers;  // num_layers
  std::int64_t decoder_layers;  // num_decoder_layers; num_layers where the file lacks it

  // umT5 learns a table in every layer; T5 and mT5 one in the first, which all layers share.
  bool table_per_layer() const { return model_type == "umt5"; }
};

// Reads what Python's json reads (python_json.h), as Hugging Face does: of a field given twice the last counts, and
// fields that are not listed above may be anything. Errors: INVALID_ARGUMENT: not such JSON, another kind of model, a
// field that is missing, of another type or out of range.
absl::StatusOr<HfConfig> ParseHfConfig(std::string_view text);

}  // namespace attnd::model
