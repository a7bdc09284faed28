// Reads the bias tables of a T5 model from GGUF files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// Reads `enc.blk.N.attn_rel_b.weight` and `dec.blk.N.attn_rel_b.weight`, dims [heads, buckets], from the file `name`,
// or from all shards if it is the first of several (gguf_split.h). `open` opens the files. The number of buckets must
// equal the metadata's `*.attention.relative_buckets_count`. GGUF does not store the maximum distance; it is 128, as in
// llama.cpp.
//
// If only layer 0 of a side has a table, all layers of the side share it, as in llama.cpp, unless the architecture is
// umt5. Otherwise every layer must have its own. The number of layers is the metadata's `block_count` and
// `decoder_block_count`, if present.
//
// Errors: INVALID_ARGUMENT with the field at fault (see also gguf.h), or for a shard that is missing, not the first, or
// not of the same model; RESOURCE_EXHAUSTED beyond the limits; DATA_LOSS; what `open` returns for `name`.
absl::StatusOr<ModelTables> ReadGguf(OpenByName open, const std::string& name, const ReadLimits& limits);

}  // namespace attnd::model
