// What an attention request must satisfy whatever the model and the limits, and the words that say so: for the client,
// which checks before it sends, and for the server, which trusts no client. Header-only, so that the client library can
// be installed by itself.
//
// Field names and ranges are those of attnd.v1.ComputeAttentionRequest.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace attnd::contract {

// Why a request is refused, by the field at fault. For messages: "<field>: expected <expected>, got <got>".
struct Fault {
  std::string field;
  std::string expected;
  std::string got;
};

// Positions, query_offset among them, end below 2^31.
inline constexpr std::int64_t kMaxPosition = std::numeric_limits<std::int32_t>::max();

inline constexpr char kDtypes[] = "DTYPE_FP32, DTYPE_FP16 or DTYPE_BF16";
inline constexpr char kBiases[] = "BIAS_NONE or unset";
inline constexpr char kLayouts[] = "LAYOUT_BATCH_HEAD_SEQUENCE_DIM or LAYOUT_BATCH_SEQUENCE_HEAD_DIM";

// The functions below return the fault, or nullopt if there is none.

inline std::optional<Fault> CheckRange(absl::string_view field, std::int64_t value, std::int64_t lowest,
                                       std::int64_t highest) {
  if (value >= lowest && value <= highest) return std::nullopt;
  return Fault{std::string(field), absl::StrCat(lowest, " to ", highest), absl::StrCat(value)};
}

// Both >= 1. Each key head serves as many query heads as any other.
inline std::optional<Fault> CheckKeyHeads(std::int64_t heads, std::int64_t kv_heads) {
  if (heads % kv_heads == 0) return std::nullopt;
  return Fault{"kv_heads", absl::StrCat("a divisor of heads, which is ", heads), absl::StrCat(kv_heads)};
}

inline std::optional<Fault> CheckScale(float scale) {
  if (std::isfinite(scale)) return std::nullopt;
  return Fault{"scale", "a finite number", absl::StrCat(scale)};
}

// At -query_length every query stands before the first key.
inline std::optional<Fault> CheckQueryOffset(std::int64_t query_offset, std::int64_t query_length) {
  return CheckRange("query_offset", query_offset, -query_length, kMaxPosition - query_length);
}

// One value for each sequence of a batch, or none at all.
inline std::optional<Fault> CheckEachSequence(absl::string_view field, absl::Span<const std::int64_t> values,
                                              std::int64_t batch, std::int64_t lowest, std::int64_t highest) {
  if (values.empty()) return std::nullopt;
  if (static_cast<std::int64_t>(values.size()) != batch) {
    return Fault{std::string(field), absl::StrCat("none or ", batch, " (batch) values"),
                 absl::StrCat(values.size(), " values")};
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= lowest && values[i] <= highest) continue;  // there may be a million: words are for the bad one
    return CheckRange(absl::StrCat(field, "[", i, "]"), values[i], lowest, highest);
  }
  return std::nullopt;
}

// query_lengths, key_lengths, key_starts: each at most `longest`.
inline std::optional<Fault> CheckLengths(absl::string_view field, absl::Span<const std::int64_t> lengths,
                                         std::int64_t batch, std::int64_t longest) {
  return CheckEachSequence(field, lengths, batch, 0, longest);
}

// `one` is whether query_offset is given.
inline std::optional<Fault> CheckQueryOffsets(absl::Span<const std::int64_t> offsets, bool one, std::int64_t batch,
                                              std::int64_t query_length) {
  if (one && !offsets.empty()) {
    return Fault{"query_offsets", "none beside query_offset", absl::StrCat(offsets.size(), " values")};
  }
  return CheckEachSequence("query_offsets", offsets, batch, -query_length, kMaxPosition - query_length);
}

// Of one sequence's key bits. key_length >= 1.
inline std::int64_t KeyBitsBytes(std::int64_t key_length) { return (key_length - 1) / 8 + 1; }

// `bytes` of key_bits. Both sizes are >= 1, and their product may overflow.
inline std::optional<Fault> CheckKeyBits(std::size_t bytes, std::int64_t batch, std::int64_t key_length) {
  const auto row = static_cast<std::uint64_t>(KeyBitsBytes(key_length));
  if (bytes == 0 || (bytes % row == 0 && bytes / row == static_cast<std::uint64_t>(batch))) return std::nullopt;
  return Fault{"key_bits",
               absl::StrCat("none or ", batch, " (batch) x ", row, " bytes (a bit for each of ", key_length, " keys)"),
               absl::StrCat(bytes, " bytes")};
}

// What a call names of a model. Each as the message has it: 0 or empty if it is unset.
struct ModelFields {
  absl::string_view model = {};
  std::uint64_t version = 0;
  absl::string_view table = {};
  std::optional<std::int64_t> first_head = std::nullopt;
  std::int64_t table_heads = 0;
};

// A call with BIAS_NONE names nothing of a model.
inline std::optional<Fault> CheckNoModel(const ModelFields& fields) {
  const auto fault = [](const char* field, std::string got) {
    return Fault{field, "none with BIAS_NONE", std::move(got)};
  };
  if (!fields.model.empty()) return fault("model", absl::StrCat("\"", fields.model, "\""));
  if (fields.version != 0) return fault("version", absl::StrCat(fields.version));
  if (!fields.table.empty()) return fault("table", absl::StrCat("\"", fields.table, "\""));
  if (fields.first_head.has_value()) return fault("first_head", absl::StrCat(*fields.first_head));
  if (fields.table_heads != 0) return fault("table_heads", absl::StrCat(fields.table_heads));
  return std::nullopt;
}

}  // namespace attnd::contract
