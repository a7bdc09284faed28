#include "bias/comparison.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "bias/number_text.h"
#include "bias/t5_buckets.h"
#include "errors/field_error.h"

namespace attnd::bias {
namespace {

constexpr std::int64_t kReachOfNone = 128;  // if no table has a reach
constexpr std::int64_t kLinearUpTo = 64;    // offsets; kAuto makes a longer axis logarithmic
constexpr std::size_t kMostRanges = 64;     // beyond it, only powers of two

// Distances at which the values of one side may change; empty if there are too many to list.
std::vector<std::int64_t> Edges(const BiasTable& table, bool after) {
  if (const auto* t5 = std::get_if<T5Rule>(&table.rule())) {
    if (after && !t5->bidirectional) return {};
    return FirstDistances(BucketsPerSide(t5->num_buckets, t5->bidirectional), t5->max_distance);
  }
  const auto* listed = std::get_if<PerOffsetRule>(&table.rule());
  if (listed == nullptr) return {};
  const std::int64_t count = static_cast<std::int64_t>(listed->values.size()) / table.heads();
  const std::int64_t far = after ? -listed->min_offset : listed->min_offset + count - 1;
  std::vector<std::int64_t> edges;
  if (far >= static_cast<std::int64_t>(kMostRanges)) return edges;
  for (std::int64_t distance = 1; distance <= far; ++distance) edges.push_back(distance);
  return edges;
}

// The farthest offset at which a rule still tells distances apart, as its author would state it; 0 if there is none.
std::int64_t Reach(const BiasTable& table) {
  if (const auto* t5 = std::get_if<T5Rule>(&table.rule())) return t5->max_distance;
  const auto* listed = std::get_if<PerOffsetRule>(&table.rule());
  if (listed == nullptr) return 0;
  const std::int64_t count = static_cast<std::int64_t>(listed->values.size()) / table.heads();
  return std::max(std::llabs(listed->min_offset), std::llabs(listed->min_offset + count - 1));
}

absl::Status CheckRange(absl::string_view field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return errors::InvalidField(field, absl::StrCat(least, " to ", most), value);
}

}  // namespace

absl::StatusOr<Comparison> Comparison::Create(std::vector<ComparedSource> sources, const ComparisonOptions& options) {
  Comparison made;
  if (sources.empty() || sources.size() > kMaxSources) {
    return errors::InvalidField("sources", absl::StrCat("1 to ", kMaxSources), sources.size());
  }
  for (const ComparedSource& source : sources) {
    if (!source.head.has_value()) continue;
    if (absl::Status s = CheckRange(source.label + ": head", *source.head, 0, source.table.heads() - 1); !s.ok())
      return s;
  }
  made.sources_ = std::move(sources);
  if (absl::Status s = made.SetPanels(options.heads); !s.ok()) return s;
  if (absl::Status s = made.SetOffsets(options); !s.ok()) return s;
  if (absl::Status s = made.Fill(); !s.ok()) return s;
  return made;
}

absl::Status Comparison::SetPanels(const std::vector<std::int64_t>& heads) {
  std::int64_t most = 1;
  for (const ComparedSource& source : sources_) {
    if (!source.head.has_value()) most = std::max(most, source.table.heads());
  }
  panels_ = heads;
  if (heads.empty()) {
    for (std::int64_t head = 0; head < most; ++head) panels_.push_back(head);
  }
  if (panels_.size() > kMaxPanels) {
    return errors::InvalidField("heads", absl::StrCat("at most ", kMaxPanels, " at a time"), panels_.size());
  }
  for (const std::int64_t head : panels_) {
    if (absl::Status s = CheckRange("heads", head, 0, most - 1); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Comparison::SetOffsets(const ComparisonOptions& options) {
  trained_length_ = options.trained_length;
  if (trained_length_.has_value()) {
    if (absl::Status s = CheckRange("trained_length", *trained_length_, 1, kMaxOffset); !s.ok()) return s;
  }
  bool both_sides = options.negatives == Negatives::kAll;
  for (const ComparedSource& source : sources_) {
    reach_ = std::max(reach_, Reach(source.table));
    both_sides |= options.negatives == Negatives::kOfTables && source.table.bidirectional();
  }
  if (reach_ == 0) reach_ = kReachOfNone;
  reach_ = std::min(reach_, kMaxOffset);
  max_offset_ = options.max_offset.value_or(std::min(kMaxOffset, 4 * std::max(reach_, trained_length_.value_or(0))));
  if (absl::Status s = CheckRange("max_offset", max_offset_, 1, kMaxOffset); !s.ok()) return s;
  min_offset_ = both_sides ? -max_offset_ : 0;
  negatives_ = options.negatives;
  log_axis_ = options.axis == Axis::kLog || (options.axis == Axis::kAuto && max_offset_ > kLinearUpTo);
  return absl::OkStatus();
}

absl::Status Comparison::Fill() {
  std::int64_t cells = 0;
  values_.resize(sources_.size());
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    for (const std::int64_t panel : panels_) {
      if (const std::optional<std::int64_t> head = HeadOf(s, panel); head.has_value()) values_[s][*head];
    }
    cells += static_cast<std::int64_t>(values_[s].size()) * (max_offset_ - FirstOffset(s) + 1);
  }
  if (cells > kMaxCells) {
    return errors::InvalidField("max_offset", absl::StrCat("at most ", kMaxCells, " values, of all sources and heads"),
                                cells);
  }
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    for (auto& [head, values] : values_[s]) {
      for (std::int64_t offset = FirstOffset(s); offset <= max_offset_; ++offset) {
        values.push_back(sources_[s].table.Value(head, offset));
      }
    }
  }
  return absl::OkStatus();
}

std::optional<std::int64_t> Comparison::HeadOf(std::size_t s, std::int64_t panel) const {
  const ComparedSource& source = sources_[s];
  if (source.head.has_value()) return source.head;
  if (source.table.heads() == 1) return 0;
  return panel < source.table.heads() ? std::optional<std::int64_t>(panel) : std::nullopt;
}

std::string Comparison::PanelName(std::int64_t panel) const {
  bool varies = false, named = false;
  for (const ComparedSource& source : sources_) {
    varies |= !source.head.has_value() && source.table.heads() > 1;
    named |= source.head.has_value();
  }
  return named && !varies ? "the heads named" : absl::StrCat("head ", panel);
}

std::int64_t Comparison::FirstOffset(std::size_t s) const {
  const bool masked =
      negatives_ == Negatives::kNone || (negatives_ == Negatives::kOfTables && !sources_[s].table.bidirectional());
  return masked ? 0 : min_offset_;
}

std::vector<OffsetSpan> Comparison::Ranges() const {
  std::set<std::int64_t> starts;
  for (const bool after : {false, true}) {
    if (after && min_offset_ == 0) continue;
    std::set<std::int64_t> distances;
    for (const ComparedSource& source : sources_) {
      for (const std::int64_t edge : Edges(source.table, after)) distances.insert(edge);
    }
    if (distances.size() > kMostRanges) distances.clear();
    const std::int64_t beyond = distances.empty() ? 0 : *distances.rbegin();
    for (std::int64_t power = 1; power <= max_offset_; power *= 2) {
      if (power > beyond) distances.insert(power);
    }
    if (trained_length_.has_value()) distances.insert(*trained_length_);
    distances.insert(1);
    // Distances >= d are offsets >= d or, after the query, offsets <= -d.
    for (const std::int64_t d : distances) {
      if (d >= 1 && d <= max_offset_) starts.insert(after ? 1 - d : d);
    }
  }
  starts.insert(0);
  starts.insert(min_offset_);
  std::vector<OffsetSpan> ranges;
  for (const std::int64_t start : starts) {
    if (!ranges.empty()) ranges.back().last = start - 1;
    ranges.push_back({start, max_offset_});
  }
  return ranges;
}

std::vector<std::int64_t> Comparison::Landmarks() const {
  std::set<std::int64_t> distances = {1, length() - 1};
  for (std::int64_t d = length(); d <= max_offset_; d *= 2) distances.insert(d);
  distances.insert(max_offset_);
  std::set<std::int64_t> landmarks;
  for (const std::int64_t d : distances) {
    if (d < 1 || d > max_offset_) continue;
    landmarks.insert(d);
    if (min_offset_ < 0) landmarks.insert(-d);
  }
  return {landmarks.begin(), landmarks.end()};
}

std::string Described(const ComparedSource& source) {
  std::string text;
  const BiasTable& table = source.table;
  if (const auto* t5 = std::get_if<T5Rule>(&table.rule())) {
    text = absl::StrCat("T5, ", t5->num_buckets, " buckets, max distance ", t5->max_distance);
  } else if (const auto* alibi = std::get_if<AlibiRule>(&table.rule())) {
    const auto [least, most] = std::minmax_element(alibi->slopes.begin(), alibi->slopes.end());
    text = absl::StrCat("ALiBi, ", *most > *least ? "slopes " : "slope ", RoundedText(static_cast<double>(*most), 4));
    if (*most > *least) absl::StrAppend(&text, " to ", RoundedText(static_cast<double>(*least), 4));
  } else {
    const auto& listed = std::get<PerOffsetRule>(table.rule());
    const std::int64_t count = static_cast<std::int64_t>(listed.values.size()) / table.heads();
    text = absl::StrCat("a value per offset, ", listed.min_offset, " to ", listed.min_offset + count - 1);
  }
  absl::StrAppend(&text, "; ", table.bidirectional() ? "bidirectional" : "causal", "; ", table.heads(),
                  table.heads() == 1 ? " head" : " heads");
  if (source.head.has_value()) absl::StrAppend(&text, ", here head ", *source.head);
  if (!source.note.empty()) absl::StrAppend(&text, "; ", source.note);
  return text;
}

std::int64_t ParametersPerHead(const BiasTable& table) {
  if (const auto* t5 = std::get_if<T5Rule>(&table.rule())) return t5->num_buckets;
  if (std::holds_alternative<AlibiRule>(table.rule())) return 1;
  return static_cast<std::int64_t>(std::get<PerOffsetRule>(table.rule()).values.size()) / table.heads();
}

std::optional<std::int64_t> ConstantFrom(const BiasTable& table) {
  if (const auto* t5 = std::get_if<T5Rule>(&table.rule())) {
    return FirstDistances(BucketsPerSide(t5->num_buckets, t5->bidirectional), t5->max_distance).back();
  }
  const auto* listed = std::get_if<PerOffsetRule>(&table.rule());
  if (listed == nullptr) return std::nullopt;
  return std::max<std::int64_t>(0, listed->min_offset + ParametersPerHead(table) - 1);
}

}  // namespace attnd::bias
