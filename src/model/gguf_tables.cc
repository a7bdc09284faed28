#include "model/gguf_tables.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/gguf.h"
#include "model/names.h"

namespace attnd::model {
namespace {

constexpr std::int64_t kMaxDistance = 128;
constexpr char kBuckets[] = ".attention.relative_buckets_count";
constexpr char kTable[] = ".attn_rel_b.weight";

absl::StatusOr<std::int64_t> BucketsOf(const GgufFile& file) {
  const std::int64_t* buckets = nullptr;
  for (const auto& [key, value] : file.metadata()) {
    if (!absl::EndsWith(key, kBuckets)) continue;
    if (buckets != nullptr) return absl::InvalidArgumentError(absl::StrCat("*", kBuckets, ": given twice"));
    buckets = std::get_if<std::int64_t>(&value);
    if (buckets == nullptr) return absl::InvalidArgumentError(absl::StrCat("*", kBuckets, ": expected an integer"));
  }
  if (buckets == nullptr) return absl::InvalidArgumentError(absl::StrCat("*", kBuckets, ": missing"));
  return *buckets;
}

absl::StatusOr<bias::T5Rule> ReadTable(const GgufFile& file, const GgufTensor& tensor, std::int64_t buckets,
                                       bool bidirectional, const ReadLimits& limits) {
  if (tensor.dims.size() != 2 || tensor.dims[1] != buckets) {
    return absl::InvalidArgumentError(
        absl::StrCat("dims: expected [heads, ", buckets, "], got [", absl::StrJoin(tensor.dims, ", "), "]"));
  }
  if (tensor.elements > limits.max_table_values) {
    return absl::ResourceExhaustedError(
        absl::StrCat("has ", tensor.elements, " values, more than max_table_values, ", limits.max_table_values));
  }
  absl::StatusOr<std::vector<float>> values = file.ReadFloats(tensor);
  if (!values.ok()) return values.status();
  return bias::T5Rule{buckets, kMaxDistance, bidirectional, *std::move(values)};
}

// The tables of one side ("enc" or "dec") under `name`.
absl::Status ReadSide(const GgufFile& file, const std::string& side, const std::string& name, std::int64_t buckets,
                      const ReadLimits& limits, ModelTables& contents) {
  const auto tensor_name = [&](std::size_t layer) { return absl::StrCat(side, ".blk.", layer, kTable); };
  std::size_t count = 0;
  for (const auto& [key, tensor] : file.tensors()) {
    if (absl::StartsWith(key, side + ".blk.") && absl::EndsWith(key, kTable)) ++count;
  }
  for (std::size_t layer = 0; layer < count; ++layer) {
    const auto found = file.tensors().find(tensor_name(layer));
    if (found == file.tensors().end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor_name(layer)), ": missing, though ", count, " layers have a table"));
    }
    auto rule = ReadTable(file, found->second, buckets, side == "enc", limits);
    if (!rule.ok()) return Annotate(rule.status(), absl::StrCat("tensor ", Quoted(tensor_name(layer))));
    const std::string table = count == 1 ? name : absl::StrCat(name, ".", layer);
    absl::Status added = AddTable(table, found->second.dims[0], *std::move(rule), limits, contents);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelTables> ReadGguf(std::unique_ptr<files::ByteSource> source, const ReadLimits& limits) {
  const absl::StatusOr<GgufFile> file = GgufFile::Open(std::move(source));
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::int64_t> buckets = BucketsOf(*file);
  if (!buckets.ok()) return buckets.status();
  ModelTables contents;
  contents.format = "gguf";
  if (const auto found = file->metadata().find("general.architecture"); found != file->metadata().end()) {
    const std::string* architecture = std::get_if<std::string>(&found->second);
    const auto printable = [](char c) { return c > ' ' && c <= '~'; };
    if (architecture == nullptr || architecture->size() > 64 ||
        !std::all_of(architecture->begin(), architecture->end(), printable)) {
      return absl::InvalidArgumentError("general.architecture: expected up to 64 printable ASCII characters");
    }
    contents.architecture = *architecture;
  }
  absl::Status read = ReadSide(*file, "enc", "encoder", *buckets, limits, contents);
  if (read.ok()) read = ReadSide(*file, "dec", "decoder", *buckets, limits, contents);
  if (!read.ok()) return read;
  if (contents.tables.empty()) {
    return absl::InvalidArgumentError("the file has no enc.blk.N.attn_rel_b.weight nor dec.blk.N.attn_rel_b.weight");
  }
  return contents;
}

}  // namespace attnd::model
