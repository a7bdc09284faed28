// What an attention request must satisfy whatever the model and the limits, and the words that say so: for the client,
// which checks before it sends, and for the server, which trusts no client. Header-only, so that the client library can
// be installed by itself.
//
// Field names and ranges are those of attnd.v1.ComputeAttentionRequest.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

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

// Lengths of a ragged batch: none, or one for each sequence, each at most `longest`.
inline std::optional<Fault> CheckLengths(absl::string_view field, absl::Span<const std::int64_t> lengths,
                                         std::int64_t batch, std::int64_t longest) {
  if (lengths.empty()) return std::nullopt;
  if (static_cast<std::int64_t>(lengths.size()) != batch) {
    return Fault{std::string(field), absl::StrCat("none or ", batch, " (batch) values"),
                 absl::StrCat(lengths.size(), " values")};
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (auto fault = CheckRange(absl::StrCat(field, "[", i, "]"), lengths[i], 0, longest)) return fault;
  }
  return std::nullopt;
}

}  // namespace attnd::contract
