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
  std::int64_t num_buckets;     // relative_attention_num_buckets; default 32
  std::int64_t max_distance;    // relative_attention_max_distance; default 128: old files lack it
  std::int64_t encoder_layers;  // num_layers
  std::int64_t decoder_layers;  // num_decoder_layers; default num_layers

  // umT5 learns a table in every layer; T5 and mT5 learn one in the first layer, which all layers share.
  bool table_per_layer() const { return model_type == "umt5"; }
};

// Parses what Python's json module reads (python_json.h), as Hugging Face does: the last of repeated fields counts, and
// fields that are not listed above may be anything. Errors: INVALID_ARGUMENT for a text that is not such JSON, another
// kind of model, or a field that is missing, of another type or out of range.
absl::StatusOr<HfConfig> ParseHfConfig(std::string_view text);

}  // namespace attnd::model
