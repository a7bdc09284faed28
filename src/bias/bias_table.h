// A bias table: how one model's heads weigh offsets. Everything reduces to one value per head and offset.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bias/table_ticket.h"

namespace attnd::bias {

// T5's rule (Hugging Face T5Attention._relative_position_bucket; Raffel et al. 2020). The book's nb, dist_max form is
// num_buckets = nb + 1, max_distance = dist_max.
struct T5Rule {
  std::int64_t num_buckets;
  std::int64_t max_distance;
  bool bidirectional;
  std::vector<float> values;  // [num_buckets, heads]
};

// ALiBi (Press et al. 2022): bias = -slope * |offset|.
struct AlibiRule {
  bool bidirectional;
  std::vector<float> slopes;  // [heads]
};

// One value for each offset from min_offset on; the nearer end's value outside. Bidirectional if min_offset < 0.
struct PerOffsetRule {
  std::int64_t min_offset;
  std::vector<float> values;  // [heads, count], by ascending offset
};

using Rule = std::variant<T5Rule, AlibiRule, PerOffsetRule>;

// The per-offset form that kernels read: the fields of kernel::BiasView, owned. See kernel/attention.h for the formula.
struct OffsetForm {
  std::int64_t min_offset;
  std::int64_t max_offset;
  std::vector<float> values;      // [heads][max_offset - min_offset + 1], by descending offset, minus `constant`
  std::vector<float> constant;    // [heads]
  std::vector<float> low_value;   // [heads]
  std::vector<float> high_slope;  // [heads]
  std::vector<float> low_slope;   // [heads]
};

// The offsets from `min` to `max`; without an end there is none.
struct OffsetRange {
  std::optional<std::int64_t> min, max;
  bool operator==(const OffsetRange&) const = default;
};

// An immutable, validated table. A handle: copies share the values, which are held once and go with the last copy.
// Reading is thread-safe. A table that has been moved from may only be assigned to or destroyed.
class BiasTable {
 public:
  static constexpr std::int64_t kMaxValues = std::int64_t{1} << 24;

  // Before the per-offset form is allocated, `ticket` grows to what bytes() will be; the table keeps it.
  //
  // Errors: INVALID_ARGUMENT with the field, what was expected and what was given: heads < 1, a size that does not
  // match, too few buckets, a max_distance that T5's formula does not allow, a value that is not finite.
  // RESOURCE_EXHAUSTED if its per-offset form takes more than `max_values` values (heads x different offsets), or if
  // `ticket` cannot grow.
  static absl::StatusOr<BiasTable> Create(std::int64_t heads, Rule rule, std::int64_t max_values = kMaxValues,
                                          TableTicket ticket = {});

  // Lets `ticket` count a table that was made without one; has no effect on one that has. Not thread-safe, for a table
  // that nobody shares yet. Errors: those of the ticket.
  absl::Status CountIn(TableTicket ticket);

  std::int64_t heads() const { return state_->heads; }
  bool bidirectional() const;
  const Rule& rule() const { return state_->rule; }
  const OffsetForm& offset_form() const { return state_->form; }

  // Memory that the table holds: four bytes for each value of the rule and each of the per-offset form, 16 for each
  // head, 8 for each bucket on one side (T5), and kTableOverhead.
  std::int64_t bytes() const { return state_->bytes; }

  // The bucket of an offset; nullopt if the rule has no buckets. For a causal table a negative offset is in bucket 0,
  // as in Hugging Face.
  std::optional<std::int64_t> Bucket(std::int64_t offset) const;

  // The offsets that Bucket() puts into a bucket that it gives for some offset.
  OffsetRange OffsetsOf(std::int64_t bucket) const;

  // The table's own value, exactly as learned. head in [0, heads).
  float Value(std::int64_t head, std::int64_t offset) const;

 private:
  struct State {
    TableTicket ticket;  // first, so that it gives back after the rest is gone
    std::int64_t heads = 0;
    std::int64_t bytes = 0;
    Rule rule;
    std::vector<std::int64_t> first_offsets;  // of each bucket on one side, ascending (T5)
    OffsetForm form;
  };

  explicit BiasTable(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// Of a table beside its values: the object itself, its entry in a model, the allocator's own.
inline constexpr std::int64_t kTableOverhead = 1024;

// What a table's rule holds before it is made: for a reader to count before it reads the values.
constexpr std::int64_t RuleBytes(std::int64_t values) { return values * std::int64_t{sizeof(float)}; }

}  // namespace attnd::bias
