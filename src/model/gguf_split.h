// GGUF models in several files, as gguf-split of llama.cpp writes them: `name-00001-of-00003.gguf` and its siblings.
// Each says in `split.no`, `split.count` and `split.tensors.count` which shard it is, of how many, with how many
// tensors in all. The first alone has the rest of the metadata.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/gguf.h"

namespace attnd::model {

// Where a file stands among the shards of its model; a whole model is the only one.
struct GgufSplit {
  std::int64_t number = 0;  // from 0 on
  std::int64_t count = 1;
  std::int64_t tensors = 0;  // in all shards
};

// What a file's metadata says. Errors: INVALID_ARGUMENT for a field that is missing or no such number, and for files of
// the first gguf-split, which had other fields.
absl::StatusOr<GgufSplit> SplitOf(const GgufFile& file);

// The name of shard `number` (from 0 on) beside `first`, the name of the first. Errors: INVALID_ARGUMENT if `first` is
// not named as the first of `count`.
absl::StatusOr<std::string> ShardName(const std::string& first, std::int64_t number, std::int64_t count);

}  // namespace attnd::model
