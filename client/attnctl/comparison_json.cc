#include "client/attnctl/comparison_json.h"

#include <cstdint>
#include <optional>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bias/number_text.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

std::string Text(const std::string& text) { return nlohmann::json(text).dump(); }

std::string OrNull(const std::optional<std::int64_t>& number) {
  return number.has_value() ? absl::StrCat(*number) : "null";
}

std::string RuleOf(const bias::BiasTable& table) {
  static constexpr const char* kNames[] = {"t5", "alibi", "per_offset"};
  return kNames[table.rule().index()];
}

// The buckets of a source's offsets; null if its table has no buckets.
std::string Buckets(const bias::Comparison& comparison, std::size_t s) {
  const bias::BiasTable& table = comparison.sources()[s].table;
  if (!table.Bucket(0).has_value()) return "null";
  std::string buckets = "[";
  for (std::int64_t offset = comparison.FirstOffset(s); offset <= comparison.max_offset(); ++offset) {
    absl::StrAppend(&buckets, buckets.size() > 1 ? "," : "", *table.Bucket(offset));
  }
  return buckets + "]";
}

std::string Values(const bias::Comparison& comparison, std::size_t s) {
  std::string rows;
  for (const std::int64_t panel : comparison.panels()) {
    const std::optional<std::int64_t> head = comparison.HeadOf(s, panel);
    absl::StrAppend(&rows, rows.empty() ? "" : ",", "\n   ");
    if (!head.has_value()) {
      absl::StrAppend(&rows, "null");
      continue;
    }
    absl::StrAppend(&rows, "[",
                    absl::StrJoin(comparison.Values(s, *head), ",",
                                  [](std::string* out, float v) { absl::StrAppend(out, bias::ShortestText(v)); }),
                    "]");
  }
  return absl::StrCat("[", rows, "]");
}

}  // namespace

std::string ComparisonJson(const bias::Comparison& comparison) {
  std::string json =
      absl::StrCat("{\"min_offset\":", comparison.min_offset(), ",\"max_offset\":", comparison.max_offset(),
                   ",\"trained_length\":", OrNull(comparison.trained_length()), ",\"axis\":\"",
                   comparison.log_axis() ? "log" : "linear", "\",\"heads\":[", absl::StrJoin(comparison.panels(), ","),
                   "],\n\"sources\":[");
  for (std::size_t s = 0; s < comparison.sources().size(); ++s) {
    const bias::ComparedSource& source = comparison.sources()[s];
    absl::StrAppend(&json, s == 0 ? "\n" : ",\n", " {\"source\":", Text(source.label),
                    ",\"description\":", Text(bias::Described(source)), ",\"rule\":\"", RuleOf(source.table),
                    "\",\"bidirectional\":", source.table.bidirectional() ? "true" : "false",
                    ",\n  \"parameters_per_head\":", bias::ParametersPerHead(source.table),
                    ",\"saturates_at\":", OrNull(bias::ConstantFrom(source.table)),
                    ",\"first_offset\":", comparison.FirstOffset(s), ",\n  \"buckets\":", Buckets(comparison, s),
                    ",\n  \"values\":", Values(comparison, s), "}");
  }
  return json + "]}\n";
}

}  // namespace attnd::ctl
