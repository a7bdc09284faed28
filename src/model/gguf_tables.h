// The bias tables of a T5 in a GGUF file.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "files/byte_source.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::model {

// Reads `enc.blk.N.attn_rel_b.weight` and `dec.blk.N.attn_rel_b.weight`, dims [heads, buckets]: layer 0 alone where all
// layers share a table, else every layer from 0 on. Buckets must be the metadata's
// `*.attention.relative_buckets_count`. GGUF has no maximum distance; it is 128, as llama.cpp has it.
//
// Errors: INVALID_ARGUMENT with the field at fault (see also gguf.h), RESOURCE_EXHAUSTED beyond the limits, DATA_LOSS.
absl::StatusOr<ModelTables> ReadGguf(std::unique_ptr<files::ByteSource> source, const ReadLimits& limits);

}  // namespace attnd::model
