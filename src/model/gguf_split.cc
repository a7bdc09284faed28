#include "model/gguf_split.h"

#include <cstdint>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/names.h"

namespace attnd::model {
namespace {

constexpr std::int64_t kMaxShards = 65535;  // the fields have 16 bits

absl::StatusOr<std::int64_t> Field(const GgufFile& file, const std::string& key, std::int64_t lowest,
                                   std::int64_t highest) {
  const auto found = file.metadata().find(key);
  const std::int64_t* value = found == file.metadata().end() ? nullptr : std::get_if<std::int64_t>(&found->second);
  if (value != nullptr && *value >= lowest && *value <= highest) return *value;
  return absl::InvalidArgumentError(absl::StrCat(key, ": expected an integer from ", lowest, " to ", highest, ", got ",
                                                 value == nullptr ? "none" : absl::StrCat(*value)));
}

}  // namespace

absl::StatusOr<GgufSplit> SplitOf(const GgufFile& file) {
  if (file.metadata().find("general.split_count") != file.metadata().end()) {
    return absl::InvalidArgumentError(
        "general.split_count: the file is a shard of the first gguf-split, not supported: merge the shards");
  }
  GgufSplit split{0, 1, static_cast<std::int64_t>(file.tensors().size())};
  if (file.metadata().find("split.count") == file.metadata().end()) return split;
  const absl::StatusOr<std::int64_t> count = Field(file, "split.count", 0, kMaxShards);
  if (!count.ok()) return count.status();
  if (*count <= 1) return split;
  const absl::StatusOr<std::int64_t> number = Field(file, "split.no", 0, *count - 1);
  if (!number.ok()) return number.status();
  const absl::StatusOr<std::int64_t> tensors = Field(file, "split.tensors.count", 0, INT64_MAX);
  if (!tensors.ok()) return tensors.status();
  return GgufSplit{*number, *count, *tensors};
}

absl::StatusOr<std::string> ShardName(const std::string& first, std::int64_t number, std::int64_t count) {
  const std::string ending = absl::StrFormat("-%05d-of-%05d.gguf", 1, count);
  if (!absl::EndsWith(first, ending)) {
    return absl::InvalidArgumentError(absl::StrCat("split.count is ", count, ": expected a file named *", ending,
                                                   " with the other shards beside it, got ", Quoted(first)));
  }
  return absl::StrCat(first.substr(0, first.size() - ending.size()),
                      absl::StrFormat("-%05d-of-%05d.gguf", number + 1, count));
}

}  // namespace attnd::model
