// A bias table: the bias that each head of a model adds at each offset. Every rule reduces to one value per head and
// offset.
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

// T5's rule (Hugging Face T5Attention._relative_position_bucket; Raffel et al. 2020). In the book's notation of nb and
// dist_max: num_buckets = nb + 1, max_distance = dist_max.
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

// One value for each offset from min_offset on. Offsets outside take the value of the nearer end. Bidirectional if
// min_offset < 0.
struct PerOffsetRule {
  std::int64_t min_offset;
  std::vector<float> values;  // [heads, count], by ascending offset
};

using Rule = std::variant<T5Rule, AlibiRule, PerOffsetRule>;

// The per-offset form that kernels read: the fields of kernel::BiasView, with ownership. For the formula, see
// kernel/attention.h.
struct OffsetForm {
  std::int64_t min_offset;
  std::int64_t max_offset;
  std::vector<float> values;      // [heads][max_offset - min_offset + 1], by descending offset, minus `constant`
  std::vector<float> constant;    // [heads]
  std::vector<float> low_value;   // [heads]
  std::vector<float> high_slope;  // [heads]
  std::vector<float> low_slope;   // [heads]
};

// The offsets from `min` to `max`; a missing end means that the range is unbounded there.
struct OffsetRange {
  std::optional<std::int64_t> min, max;
  bool operator==(const OffsetRange&) const = default;
};

// An immutable, validated table. A handle: copies share the values, which are freed with the last copy. Reading is
// thread-safe. A table that has been moved from may only be assigned to or destroyed.
class BiasTable {
 public:
  static constexpr std::int64_t kMaxValues = std::int64_t{1} << 24;

  // Grows `ticket` to the final bytes() before it allocates the per-offset form; the table keeps the ticket.
  //
  // Errors: INVALID_ARGUMENT with the field, what was expected and what was given: heads < 1, a size that does not
  // match, too few buckets, a max_distance that T5's formula does not allow, a value that is not finite.
  // RESOURCE_EXHAUSTED if the per-offset form needs more than `max_values` values (heads x different offsets), or if
  // `ticket` cannot grow.
  static absl::StatusOr<BiasTable> Create(std::int64_t heads, Rule rule, std::int64_t max_values = kMaxValues,
                                          TableTicket ticket = {});

  // Lets `ticket` account for a table made without a ticket; does nothing for a table that has one. Not thread-safe:
  // only for a table that is not shared yet. Errors: those of the ticket.
  absl::Status CountIn(TableTicket ticket);

  std::int64_t heads() const { return state_->heads; }
  bool bidirectional() const;
  const Rule& rule() const { return state_->rule; }
  const OffsetForm& offset_form() const { return state_->form; }

  // Memory that the table holds: 4 bytes per value of the rule and per value of the per-offset form, 16 per head, 8 per
  // bucket of one side (T5), and kTableOverhead.
  std::int64_t bytes() const { return state_->bytes; }

  // The bucket of an offset; nullopt if the rule has no buckets. In a causal table, negative offsets are in bucket 0,
  // as in Hugging Face.
  std::optional<std::int64_t> Bucket(std::int64_t offset) const;

  // The offsets in a bucket. `bucket` must be a result of Bucket().
  OffsetRange OffsetsOf(std::int64_t bucket) const;

  // The learned value, unchanged. head in [0, heads).
  float Value(std::int64_t head, std::int64_t offset) const;

 private:
  struct State {
    TableTicket ticket;  // first: gives its bytes back after everything else is freed
    std::int64_t heads = 0;
    std::int64_t bytes = 0;
    Rule rule;
    std::vector<std::int64_t> first_offsets;  // of each bucket on one side, ascending (T5)
    OffsetForm form;
  };

  explicit BiasTable(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// Bytes of a table besides its values: the object, its entry in a model, the allocator's overhead.
inline constexpr std::int64_t kTableOverhead = 1024;

// Bytes of a rule with that many values, for readers that account for them before they read them.
constexpr std::int64_t RuleBytes(std::int64_t values) { return values * std::int64_t{sizeof(float)}; }

}  // namespace attnd::bias
