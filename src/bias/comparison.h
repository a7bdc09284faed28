// Several biases side by side: what each table gives the same offsets, near and beyond the trained length.
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
  std::optional<std::int64_t> head;  // the only one of its heads that is compared
};

enum class Axis { kAuto, kLinear, kLog };
enum class Negatives { kOfTables, kNone, kAll };  // offsets below 0, of keys after the query

struct ComparisonOptions {
  std::optional<std::int64_t> max_offset = std::nullopt;  // see Comparison::max_offset
  std::optional<std::int64_t> trained_length =
      std::nullopt;                      // tokens of the sequences that the tables were trained with
  std::vector<std::int64_t> heads = {};  // empty: all
  Axis axis = Axis::kAuto;
  Negatives negatives = Negatives::kOfTables;
};

// Offsets, both ends included.
struct OffsetSpan {
  std::int64_t first, last;
};

// Immutable. A source of which one head is compared is in every panel; the others show head h in panel h, if they have
// it.
class Comparison {
 public:
  static constexpr std::size_t kMaxSources = 8;
  static constexpr std::size_t kMaxPanels = 256;
  static constexpr std::int64_t kMaxOffset = std::int64_t{1} << 20;
  static constexpr std::int64_t kMaxCells = std::int64_t{1} << 24;

  // Errors: INVALID_ARGUMENT with the field: no or too many sources, a head that none has, a number out of range.
  static absl::StatusOr<Comparison> Create(std::vector<ComparedSource> sources, const ComparisonOptions& options);

  const std::vector<ComparedSource>& sources() const { return sources_; }
  const std::vector<std::int64_t>& panels() const { return panels_; }  // the heads
  std::int64_t min_offset() const { return min_offset_; }              // 0, or -max_offset()
  // By default four times the longest reach of a table, or the trained length if that is longer.
  std::int64_t max_offset() const { return max_offset_; }
  std::optional<std::int64_t> trained_length() const { return trained_length_; }
  bool log_axis() const { return log_axis_; }

  // The head of source `s` that a panel shows; nullopt: none.
  std::optional<std::int64_t> HeadOf(std::size_t s, std::int64_t panel) const;
  // "head 3", for a heading.
  std::string PanelName(std::int64_t panel) const;
  // The lowest offset at which source `s` is shown: 0 if keys after the query are masked.
  std::int64_t FirstOffset(std::size_t s) const;
  // Its values from FirstOffset(s) to max_offset(). `head` is one that HeadOf gave.
  const std::vector<float>& Values(std::size_t s, std::int64_t head) const { return values_[s].at(head); }

  // Ranges that together are all offsets, ascending: the tables' buckets, then powers of two; cut at the trained
  // length.
  std::vector<OffsetSpan> Ranges() const;
  // Offsets worth naming, ascending: around the trained length (or the longest reach) and its multiples.
  std::vector<std::int64_t> Landmarks() const;
  // The length from which on nothing was trained, or, unless it was given, the longest reach of a table.
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

// How many values of its own each head has: buckets, one slope, or a value per offset.
std::int64_t ParametersPerHead(const BiasTable& table);

// The distance from which on all keys before the query share a value, whatever its heads' values are; nullopt: none.
std::optional<std::int64_t> ConstantFrom(const BiasTable& table);

// For people: what each source is, then for each head its values by ranges of offsets, the weights that they mean, and
// the range within and beyond the trained length.
std::string ComparisonText(const Comparison& comparison);

// A standalone SVG 1.1 document: a panel for each head with a curve for each source.
std::string ComparisonSvg(const Comparison& comparison);

}  // namespace attnd::bias
