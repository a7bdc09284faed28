// The checks on an attention request that depend on neither the model nor the limits, and their error texts. The client
// runs them before it sends; the server runs them because it trusts no client. Header-only, so that the client library
// can be installed by itself.
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

// Why a request is refused, and the field at fault. As a message: "<field>: expected <expected>, got <got>".
struct Fault {
  std::string field;
  std::string expected;
  std::string got;
};

// The largest position: query_offset + query_length must not exceed it.
inline constexpr std::int64_t kMaxPosition = std::numeric_limits<std::int32_t>::max();

inline constexpr char kDtypes[] = "DTYPE_FP32, DTYPE_FP16 or DTYPE_BF16";
inline constexpr char kBiases[] = "BIAS_NONE or unset";
inline constexpr char kLayouts[] = "LAYOUT_BATCH_HEAD_SEQUENCE_DIM or LAYOUT_BATCH_SEQUENCE_HEAD_DIM";

// The Check functions below return the fault, or nullopt if there is none.

inline std::optional<Fault> CheckRange(absl::string_view field, std::int64_t value, std::int64_t lowest,
                                       std::int64_t highest) {
  if (value >= lowest && value <= highest) return std::nullopt;
  return Fault{std::string(field), absl::StrCat(lowest, " to ", highest), absl::StrCat(value)};
}

// Both >= 1. Every key head serves the same number of query heads.
inline std::optional<Fault> CheckKeyHeads(std::int64_t heads, std::int64_t kv_heads) {
  if (heads % kv_heads == 0) return std::nullopt;
  return Fault{"kv_heads", absl::StrCat("a divisor of heads, which is ", heads), absl::StrCat(kv_heads)};
}

inline std::optional<Fault> CheckScale(float scale) {
  if (std::isfinite(scale)) return std::nullopt;
  return Fault{"scale", "a finite number", absl::StrCat(scale)};
}

// At -query_length every query is before the first key.
inline std::optional<Fault> CheckQueryOffset(std::int64_t query_offset, std::int64_t query_length) {
  return CheckRange("query_offset", query_offset, -query_length, kMaxPosition - query_length);
}

// One value for each sequence of a batch, or no values at all.
inline std::optional<Fault> CheckEachSequence(absl::string_view field, absl::Span<const std::int64_t> values,
                                              std::int64_t batch, std::int64_t lowest, std::int64_t highest) {
  if (values.empty()) return std::nullopt;
  if (static_cast<std::int64_t>(values.size()) != batch) {
    return Fault{std::string(field), absl::StrCat("none or ", batch, " (batch) values"),
                 absl::StrCat(values.size(), " values")};
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= lowest && values[i] <= highest) continue;  // up to a million values: build text only on failure
    return CheckRange(absl::StrCat(field, "[", i, "]"), values[i], lowest, highest);
  }
  return std::nullopt;
}

// For query_lengths, key_lengths and key_starts: each at most `longest`.
inline std::optional<Fault> CheckLengths(absl::string_view field, absl::Span<const std::int64_t> lengths,
                                         std::int64_t batch, std::int64_t longest) {
  return CheckEachSequence(field, lengths, batch, 0, longest);
}

// `one`: query_offset is set.
inline std::optional<Fault> CheckQueryOffsets(absl::Span<const std::int64_t> offsets, bool one, std::int64_t batch,
                                              std::int64_t query_length) {
  if (one && !offsets.empty()) {
    return Fault{"query_offsets", "none beside query_offset", absl::StrCat(offsets.size(), " values")};
  }
  return CheckEachSequence("query_offsets", offsets, batch, -query_length, kMaxPosition - query_length);
}

// Bytes of key_bits for one sequence. key_length >= 1.
inline std::int64_t KeyBitsBytes(std::int64_t key_length) { return (key_length - 1) / 8 + 1; }

// `bytes`: the size of key_bits. batch and key_length are >= 1; their product may overflow.
inline std::optional<Fault> CheckKeyBits(std::size_t bytes, std::int64_t batch, std::int64_t key_length) {
  const auto row = static_cast<std::uint64_t>(KeyBitsBytes(key_length));
  if (bytes == 0 || (bytes % row == 0 && bytes / row == static_cast<std::uint64_t>(batch))) return std::nullopt;
  return Fault{"key_bits",
               absl::StrCat("none or ", batch, " (batch) x ", row, " bytes (a bit for each of ", key_length, " keys)"),
               absl::StrCat(bytes, " bytes")};
}

// For window_left and window_right.
inline std::optional<Fault> CheckWindow(absl::string_view field, std::optional<std::int64_t> distance) {
  return distance.has_value() ? CheckRange(field, *distance, 0, kMaxPosition) : std::nullopt;
}

// `causal`: the call has a causal mask, as far as the caller knows.
inline std::optional<Fault> CheckPrefixLengths(absl::Span<const std::int64_t> lengths, bool causal, std::int64_t batch,
                                               std::int64_t key_length) {
  if (!causal && !lengths.empty()) {
    return Fault{"prefix_lengths", "none without a causal mask", absl::StrCat(lengths.size(), " values")};
  }
  return CheckLengths("prefix_lengths", lengths, batch, key_length);
}

// heads and key_length are >= 1; their product may overflow.
inline std::optional<Fault> CheckKeyBias(absl::Span<const float> bias, std::int64_t heads, std::int64_t key_length) {
  if (bias.empty()) return std::nullopt;
  const auto keys = static_cast<std::uint64_t>(key_length);
  if (bias.size() % keys != 0 || bias.size() / keys != static_cast<std::uint64_t>(heads)) {
    return Fault{"key_bias", absl::StrCat("none or ", heads, " (heads) x ", key_length, " (keys) values"),
                 absl::StrCat(bias.size(), " values")};
  }
  for (std::size_t i = 0; i < bias.size(); ++i) {
    if (!std::isfinite(bias[i]))
      return Fault{absl::StrCat("key_bias[", i, "]"), "a finite number", absl::StrCat(bias[i])};
  }
  return std::nullopt;
}

// Sequences packed into rows, in the form of query_segments and key_segments. `keys` may be empty if both lengths are
// the same. Sizes are >= 1; their products may overflow.
inline std::optional<Fault> CheckSegments(absl::Span<const std::int64_t> queries, absl::Span<const std::int64_t> keys,
                                          std::int64_t batch, std::int64_t query_length, std::int64_t key_length) {
  if (queries.empty()) {
    if (keys.empty()) return std::nullopt;
    return Fault{"key_segments", "none without query_segments", absl::StrCat(keys.size(), " values")};
  }
  if (keys.empty() && query_length != key_length) {
    return Fault{"key_segments", absl::StrCat(queries.size(), " values, as query_length is not key_length"), "none"};
  }
  if (!keys.empty() && keys.size() != queries.size()) {
    return Fault{"key_segments", absl::StrCat(queries.size(), " values, as query_segments has"),
                 absl::StrCat(keys.size(), " values")};
  }
  const auto check = [&](absl::string_view field, absl::Span<const std::int64_t> starts,
                         std::int64_t length) -> std::optional<Fault> {
    const auto fault = [&](std::size_t i, std::string expected) {
      return Fault{absl::StrCat(field, "[", i, "]"), std::move(expected), absl::StrCat(starts[i])};
    };
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    const std::int64_t last = length > kMost / batch ? kMost : batch * length - 1;
    std::int64_t row = -1;
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const std::int64_t lowest = i == 0 ? 0 : starts[i - 1] + 1;
      if (starts[i] < lowest || starts[i] > last) return fault(i, absl::StrCat(lowest, " to ", last));
      const std::int64_t of_queries = queries[i] / query_length;
      if (starts[i] / length != row && (starts[i] % length != 0 || starts[i] / length != row + 1)) {
        const auto begin = static_cast<std::uint64_t>(row + 1) * static_cast<std::uint64_t>(length);
        return fault(i, absl::StrCat(begin, ", where row ", row + 1, " begins"));
      }
      row = starts[i] / length;
      if (row != of_queries) return fault(i, absl::StrCat("a position in row ", of_queries, ", as query_segments has"));
    }
    if (row == batch - 1) return std::nullopt;
    return Fault{std::string(field), absl::StrCat("a sequence in each of ", batch, " rows"),
                 absl::StrCat("none in row ", row + 1)};
  };
  if (auto fault = check("query_segments", queries, query_length); fault.has_value()) return fault;
  return keys.empty() ? std::nullopt : check("key_segments", keys, key_length);
}

// The number of values in each field that must not be set together with query_segments. query_offset: 1 if it is set.
struct BesideSegments {
  std::size_t query_offset = 0;
  std::size_t query_offsets = 0;
  std::size_t query_lengths = 0;
  std::size_t key_lengths = 0;
  std::size_t key_starts = 0;
  std::size_t key_bits = 0;
  std::size_t prefix_lengths = 0;
  std::size_t key_bias = 0;
  std::size_t kv_rows = 0;
};

// A call with query_segments sets none of these fields.
inline std::optional<Fault> CheckBesideSegments(const BesideSegments& others) {
  const std::pair<const char*, std::size_t> named[] = {{"query_offset", others.query_offset},
                                                       {"query_offsets", others.query_offsets},
                                                       {"query_lengths", others.query_lengths},
                                                       {"key_lengths", others.key_lengths},
                                                       {"key_starts", others.key_starts},
                                                       {"key_bits", others.key_bits},
                                                       {"prefix_lengths", others.prefix_lengths},
                                                       {"key_bias", others.key_bias},
                                                       {"kv_rows", others.kv_rows}};
  for (const auto& [field, count] : named) {
    if (count > 0) return Fault{field, "none with query_segments", absl::StrCat(count, " values")};
  }
  return std::nullopt;
}

// `kv_batch` >= 1: the number of sequences of keys and values.
inline std::optional<Fault> CheckKvRows(absl::Span<const std::int64_t> rows, std::int64_t kv_batch,
                                        std::int64_t batch) {
  if (rows.empty() && kv_batch != batch) {
    return Fault{"kv_rows", absl::StrCat(batch, " (batch) values, as kv_batch is ", kv_batch), "none"};
  }
  return CheckEachSequence("kv_rows", rows, batch, 0, kv_batch - 1);
}

// The fields of a call that refer to a model, as in the message: 0 or empty if unset.
struct ModelFields {
  absl::string_view model = {};
  std::uint64_t version = 0;
  absl::string_view table = {};
  std::optional<std::int64_t> first_head = std::nullopt;
  std::int64_t table_heads = 0;
};

// A call with BIAS_NONE sets none of these fields.
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
