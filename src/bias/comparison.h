// Compares biases: the values of several tables at the same offsets, near and beyond the trained length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bias/bias_table.h"

namespace attnd::bias {

// One of the tables compared.
struct ComparedSource {
  std::string label;  // how it was named
  std::string note;   // where its values come from; may be empty
  BiasTable table;
  std::optional<std::int64_t> head;  // if set, only this head is compared
};

enum class Axis { kAuto, kLinear, kLog };
enum class Negatives { kOfTables, kNone, kAll };  // offsets below 0: keys after the query

struct ComparisonOptions {
  std::optional<std::int64_t> max_offset = std::nullopt;  // see Comparison::max_offset
  std::optional<std::int64_t> trained_length =
      std::nullopt;                      // tokens of the sequences that the tables were trained with
  std::vector<std::int64_t> heads = {};  // empty: all
  Axis axis = Axis::kAuto;
  Negatives negatives = Negatives::kOfTables;
};

// A range of offsets, both ends included.
struct OffsetSpan {
  std::int64_t first, last;
};

// Immutable. A source with one selected head, or whose table has a single head, is in every panel. Other sources show
// head h in panel h, if they have it.
class Comparison {
 public:
  static constexpr std::size_t kMaxSources = 8;
  static constexpr std::size_t kMaxPanels = 256;
  static constexpr std::int64_t kMaxOffset = std::int64_t{1} << 20;
  static constexpr std::int64_t kMaxCells = std::int64_t{1} << 24;

  // Errors: INVALID_ARGUMENT with the field: no sources or too many, a head that no source has, a number out of range.
  static absl::StatusOr<Comparison> Create(std::vector<ComparedSource> sources, const ComparisonOptions& options);

  const std::vector<ComparedSource>& sources() const { return sources_; }
  const std::vector<std::int64_t>& panels() const { return panels_; }  // the heads
  std::int64_t min_offset() const { return min_offset_; }              // 0, or -max_offset()
  // By default four times the longest reach of a table or the trained length, whichever is longer.
  std::int64_t max_offset() const { return max_offset_; }
  std::optional<std::int64_t> trained_length() const { return trained_length_; }
  bool log_axis() const { return log_axis_; }

  // The head of source `s` that a panel shows; nullopt if none.
  std::optional<std::int64_t> HeadOf(std::size_t s, std::int64_t panel) const;
  // "head 3", for a heading.
  std::string PanelName(std::int64_t panel) const;
  // The lowest offset at which source `s` is shown: 0 if keys after the query are masked.
  std::int64_t FirstOffset(std::size_t s) const;
  // The values of source `s` from FirstOffset(s) to max_offset(). `head` is a result of HeadOf.
  const std::vector<float>& Values(std::size_t s, std::int64_t head) const { return values_[s].at(head); }

  // Ranges that together cover all offsets, ascending: the tables' buckets, then powers of two, split at the trained
  // length.
  std::vector<OffsetSpan> Ranges() const;
  // Offsets worth naming, ascending: 1, those around length(), its doublings, and max_offset(); both signs if
  // min_offset() < 0.
  std::vector<std::int64_t> Landmarks() const;
  // The trained length, or the longest reach of a table if none was given.
  std::int64_t length() const { return trained_length_.value_or(reach_); }

 private:
  Comparison() = default;
  absl::Status SetPanels(const std::vector<std::int64_t>& heads);
  absl::Status SetOffsets(const ComparisonOptions& options);
  absl::Status Fill();

  std::vector<ComparedSource> sources_;
  std::vector<std::int64_t> panels_;
  std::int64_t min_offset_ = 0, max_offset_ = 0, reach_ = 0;
  std::optional<std::int64_t> trained_length_;
  bool log_axis_ = false;
  Negatives negatives_ = Negatives::kOfTables;
  std::vector<std::map<std::int64_t, std::vector<float>>> values_;  // of each source, by head
};

// "T5, 32 buckets, max distance 128; causal; 8 heads".
std::string Described(const ComparedSource& source);

// The number of learned values per head: buckets, one slope, or one value per offset.
std::int64_t ParametersPerHead(const BiasTable& table);

// The distance from which on all keys before the query share one value, whatever the table's values are; nullopt if
// there is none.
std::optional<std::int64_t> ConstantFrom(const BiasTable& table);

// For people: a description of each source, then for each head its values by ranges of offsets, the weights that they
// mean, and the lowest and highest values within and beyond the trained length.
std::string ComparisonText(const Comparison& comparison);

// A standalone SVG 1.1 document: a panel for each head with a curve for each source.
std::string ComparisonSvg(const Comparison& comparison);

}  // namespace attnd::bias
