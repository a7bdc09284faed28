#include "server/models/bias_window.h"

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "tensor/checked_size.h"

namespace attnd::server {
namespace {

// Checks a range of positions: at least one, none beyond 2^31 - 1.
absl::Status CheckRun(absl::string_view axis, std::int64_t start, std::int64_t count) {
  if (count < 1 || count > contract::kMaxPosition) {
    return InvalidField(absl::StrCat(axis, "_count"), absl::StrCat("1 to ", contract::kMaxPosition), count);
  }
  if (start < 0 || start > contract::kMaxPosition - count) {
    return InvalidField(absl::StrCat(axis, "_start"), absl::StrCat("0 to ", contract::kMaxPosition - count), start);
  }
  return absl::OkStatus();
}

absl::Status CheckWindow(const v1::GetBiasRequest& request, std::int64_t heads, const Limits& limits) {
  ATTND_RETURN_IF_ERROR(CheckRun("query", request.query_start(), request.query_count()));
  ATTND_RETURN_IF_ERROR(CheckRun("key", request.key_start(), request.key_count()));
  for (int i = 0; i < request.heads_size(); ++i) {
    if (request.heads(i) < 0 || request.heads(i) >= heads) {
      return InvalidField(absl::StrCat("heads[", i, "]"), absl::StrCat("0 to ", heads - 1), request.heads(i));
    }
  }
  const std::int64_t shown = request.heads().empty() ? heads : request.heads_size();
  const std::optional<std::int64_t> cells = tensor::CheckedProduct({request.query_count(), request.key_count(), shown});
  if (cells.has_value() && *cells <= limits.max_bias_cells) return absl::OkStatus();
  return FieldError(
      absl::StatusCode::kResourceExhausted, "query_count",
      absl::StrCat("a window of at most ", limits.max_bias_cells, " cells (--max_bias_cells)"),
      absl::StrCat(request.query_count(), " queries x ", request.key_count(), " keys x ", shown, " heads"));
}

absl::StatusOr<v1::Mask> MaskOf(const v1::GetBiasRequest& request, const bias::BiasTable& table) {
  if (!v1::Mask_IsValid(request.mask())) {
    return InvalidField("mask", "MASK_CAUSAL, MASK_NONE or unset", static_cast<int>(request.mask()));
  }
  if (request.mask() != v1::MASK_UNSPECIFIED) return request.mask();
  return table.bidirectional() ? v1::MASK_NONE : v1::MASK_CAUSAL;
}

// Adds the offset range of each bucket in response.buckets.
void AddRanges(v1::GetBiasResponse& response, const bias::BiasTable& table) {
  std::set<std::int32_t> named;
  std::int32_t last = -1;
  for (const std::int32_t bucket : response.buckets()) {
    if (bucket != last && bucket >= 0) named.insert(bucket);
    last = bucket;
  }
  for (const std::int32_t bucket : named) {
    const bias::OffsetRange offsets = table.OffsetsOf(bucket);
    v1::BucketRange& range = *response.add_bucket_ranges();
    range.set_bucket(bucket);
    if (offsets.min) range.set_min_offset(*offsets.min);
    if (offsets.max) range.set_max_offset(*offsets.max);
  }
}

}  // namespace

absl::Status FillBiasWindow(const v1::GetBiasRequest& request, const model::Model& model, const Limits& limits,
                            v1::GetBiasResponse& response) {
  ATTND_ASSIGN_OR_RETURN(const model::Model::Found found, model.FindTable(request.table()));
  const bias::BiasTable& table = *found.table;
  ATTND_RETURN_IF_ERROR(CheckWindow(request, table.heads(), limits));
  ATTND_ASSIGN_OR_RETURN(const v1::Mask mask, MaskOf(request, table));

  response.set_version(model.version());
  response.set_content_hash(model.content_hash());
  response.set_table(std::string(found.name));
  response.set_mask(mask);
  *response.mutable_heads() = request.heads();
  for (std::int64_t head = 0; request.heads().empty() && head < table.heads(); ++head) response.add_heads(head);

  // Calls `cell(offset, masked)` for every cell, row-major.
  const auto for_each_cell = [&](auto cell) {
    for (std::int64_t i = 0; i < request.query_count(); ++i) {
      for (std::int64_t j = 0; j < request.key_count(); ++j) {
        const std::int64_t offset = request.query_start() + i - (request.key_start() + j);
        cell(offset, mask == v1::MASK_CAUSAL && offset < 0);
      }
    }
  };
  // Reserve once; CheckWindow has bounded the sizes.
  const auto cells = static_cast<int>(request.query_count() * request.key_count());
  response.mutable_offsets()->Reserve(cells);
  if (table.Bucket(0).has_value()) response.mutable_buckets()->Reserve(cells);
  response.mutable_values()->Reserve(cells * response.heads_size());
  for_each_cell([&](std::int64_t offset, bool masked) {
    response.add_offsets(offset);
    if (const std::optional<std::int64_t> bucket = table.Bucket(offset)) {
      response.add_buckets(masked ? -1 : static_cast<std::int32_t>(*bucket));
    }
  });
  AddRanges(response, table);
  for (const std::int64_t head : response.heads()) {
    for_each_cell(
        [&](std::int64_t offset, bool masked) { response.add_values(masked ? 0.0F : table.Value(head, offset)); });
  }
  return absl::OkStatus();
}

std::int64_t BiasWindowBytes(const v1::GetBiasRequest& request, const model::Model& model, const Limits& limits) {
  const absl::StatusOr<model::Model::Found> found = model.FindTable(request.table());
  if (!found.ok() || !CheckWindow(request, found->table->heads(), limits).ok()) return 0;
  // Serialised, an offset or a bucket takes up to ten bytes; a negative number takes all ten.
  constexpr std::int64_t kOffsetAndBucket = sizeof(std::int64_t) + sizeof(std::int32_t) + 10 + 10;
  constexpr std::int64_t kValue = sizeof(float) + sizeof(float);
  const std::int64_t heads = request.heads().empty() ? found->table->heads() : request.heads_size();
  // CheckWindow has bounded the product of queries, keys and heads.
  return request.query_count() * request.key_count() * (kOffsetAndBucket + heads * kValue);
}

}  // namespace attnd::server
