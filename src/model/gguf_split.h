// GGUF models in several files, as gguf-split of llama.cpp writes them: `name-00001-of-00003.gguf` and its siblings.
// Each file gives the number of its shard in `split.no`, the number of shards in `split.count`, and the number of
// tensors in all shards in `split.tensors.count`. Only the first file has the rest of the metadata.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/gguf.h"

namespace attnd::model {

// A file's place among the shards of its model. A model in a single file is its own only shard.
struct GgufSplit {
  std::int64_t number = 0;  // from 0 on
  std::int64_t count = 1;
  std::int64_t tensors = 0;  // in all shards
};

// Returns a file's place, from its metadata. Errors: INVALID_ARGUMENT for a field that is missing or not a valid
// number, and for files of the first version of gguf-split, which had other fields.
absl::StatusOr<GgufSplit> SplitOf(const GgufFile& file);

// The name of shard `number` (from 0 on), given `first`, the name of the first shard. Errors: INVALID_ARGUMENT if
// `first` is not the name of a first shard of `count`.
absl::StatusOr<std::string> ShardName(const std::string& first, std::int64_t number, std::int64_t count);

}  // namespace attnd::model
