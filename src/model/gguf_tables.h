// The bias tables of a T5 in GGUF files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// Reads `enc.blk.N.attn_rel_b.weight` and `dec.blk.N.attn_rel_b.weight`, dims [heads, buckets], of the file `name`, or
// of all its shards if it is the first of several (gguf_split.h); `open` opens them. Buckets must be the metadata's
// `*.attention.relative_buckets_count`. GGUF has no maximum distance; it is 128, as llama.cpp has it.
//
// A side whose layer 0 alone has a table shares it, as llama.cpp has it, unless the architecture is umt5. Otherwise
// every layer has its own: as many as the metadata's `block_count` and `decoder_block_count` say, where they are there.
//
// Errors: INVALID_ARGUMENT with the field at fault (see also gguf.h), or for a shard that is missing, not the first, or
// not of the same model; RESOURCE_EXHAUSTED beyond the limits; DATA_LOSS; what `open` returns for `name`.
absl::StatusOr<ModelTables> ReadGguf(OpenByName open, const std::string& name, const ReadLimits& limits);

}  // namespace attnd::model
