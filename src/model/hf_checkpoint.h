// Reader of Hugging Face checkpoint folders: T5, mT5 and umT5.
#pragma once

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// Reads config.json, and the bias tables from model.safetensors or from the shards that model.safetensors.index.json
// names. Only the self-attention of the first layer (umT5: of every layer) has a table. An encoder without a decoder,
// as T5EncoderModel saves it, has no table for the decoder. Reads only headers and tables.
//
// Errors: INVALID_ARGUMENT with the file and field at fault, also for a file that the folder lacks; RESOURCE_EXHAUSTED
// beyond the limits; what `open` returns.
absl::StatusOr<ModelTables> ReadHfCheckpoint(OpenByName open, const ReadLimits& limits);

}  // namespace attnd::model
