#include "client/attnctl/bias_json.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bias/number_text.h"
#include "bias/picture.h"
#include "client/attnctl/bias_window.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

// The beginning of every document.
std::string Source(const BiasRequest& request, const BiasReply& reply) {
  return absl::StrCat("{\"model\":", nlohmann::json(request.model).dump(), ",\"version\":", reply.version,
                      ",\"table\":", nlohmann::json(reply.table).dump(), ",\"mask\":\"",
                      reply.mask == Mask::kCausal ? "causal" : "none", "\"");
}

std::string Heads(const BiasReply& reply) { return absl::StrCat("[", absl::StrJoin(reply.heads, ","), "]"); }

std::string End(const std::optional<std::int64_t>& offset) { return offset ? absl::StrCat(*offset) : "null"; }

std::string Range(const BucketRange& range) {
  return absl::StrCat("{\"bucket\":", range.bucket, ",\"min_offset\":", End(range.min_offset),
                      ",\"max_offset\":", End(range.max_offset), "}");
}

// [[...], ...] by query and key; `cell` returns the text of an unmasked cell.
std::string Rows(const bias::PictureWindow& window, absl::FunctionRef<std::string(std::size_t)> cell) {
  std::string rows = "[";
  std::size_t at = 0;
  for (std::int64_t q = 0; q < window.queries; ++q) {
    absl::StrAppend(&rows, q == 0 ? "\n  [" : ",\n  [");
    for (std::int64_t k = 0; k < window.keys; ++k, ++at) {
      absl::StrAppend(&rows, k == 0 ? "" : ",", window.Masked(window.Offset(q, k)) ? "null" : cell(at));
    }
    absl::StrAppend(&rows, "]");
  }
  return rows + "]";
}

}  // namespace

std::string WindowJson(const BiasRequest& request, const BiasReply& reply, bool all_heads) {
  const bias::PictureWindow window = PictureOf(request, reply);
  const auto values = [&](const bias::HeadValues& head) {
    return Rows(window, [&](std::size_t at) { return bias::ShortestText(head.values[at]); });
  };
  std::string of_heads;
  for (const bias::HeadValues& head : window.heads) {
    absl::StrAppend(&of_heads, of_heads.empty() ? "" : ",\n", values(head));
  }
  return absl::StrCat(
      Source(request, reply),
      all_heads ? absl::StrCat(",\"heads\":", Heads(reply)) : absl::StrCat(",\"head\":", reply.heads[0]),
      ",\"query_start\":", window.query_start, ",\"key_start\":", window.key_start, ",\n\"bucket_ranges\":[",
      absl::StrJoin(reply.bucket_ranges, ",",
                    [](std::string* out, const BucketRange& range) { absl::StrAppend(out, Range(range)); }),
      "],\n\"offsets\":", Rows(window, [&](std::size_t at) { return absl::StrCat(reply.offsets[at]); }),
      ",\n\"buckets\":",
      Rows(window, [&](std::size_t at) { return reply.buckets.empty() ? "null" : absl::StrCat(reply.buckets[at]); }),
      ",\n\"values\":", all_heads ? absl::StrCat("[", of_heads, "]") : values(window.heads[0]), "}\n");
}

std::string CellJson(const BiasRequest& request, const BiasReply& reply) {
  const bool masked = reply.mask == Mask::kCausal && reply.offsets[0] < 0;
  const bool in_bucket = !masked && !reply.buckets.empty();
  return absl::StrCat(
      Source(request, reply), ",\"query\":", request.query_start, ",\"key\":", request.key_start,
      ",\"offset\":", reply.offsets[0], ",\"masked\":", masked ? "true" : "false",
      ",\"bucket\":", in_bucket ? absl::StrCat(reply.buckets[0]) : "null",
      ",\"bucket_range\":", in_bucket && !reply.bucket_ranges.empty() ? Range(reply.bucket_ranges[0]) : "null",
      ",\"heads\":", Heads(reply), ",\"values\":[",
      absl::StrJoin(
          reply.values, ",",
          [&](std::string* out, float value) { absl::StrAppend(out, masked ? "null" : bias::ShortestText(value)); }),
      "]}\n");
}

}  // namespace attnd::ctl
