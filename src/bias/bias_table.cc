#include "bias/bias_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bias/offset_form.h"
#include "bias/t5_buckets.h"
#include "errors/field_error.h"
#include "tensor/checked_size.h"

namespace attnd::bias {
namespace {

// Keeps sums and differences of offsets, and so of positions, far from overflow.
constexpr std::int64_t kMaxStart = std::int64_t{1} << 32;
// Keeps a slope times any offset finite.
constexpr float kMaxSlope = 0x1p64F;

absl::Status CheckFinite(absl::string_view field, const std::vector<float>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return errors::InvalidField(absl::StrCat(field, "[", i, "]"), "a finite value", values[i]);
  }
  return absl::OkStatus();
}

struct Validator {
  std::int64_t heads;

  absl::Status operator()(const T5Rule& rule) const {
    if (absl::Status t5 = CheckT5(rule.num_buckets, rule.max_distance, rule.bidirectional); !t5.ok()) return t5;
    const auto size = static_cast<std::int64_t>(rule.values.size());
    if (tensor::CheckedProduct({rule.num_buckets, heads}) != size) {
      return errors::InvalidField("values", absl::StrCat(rule.num_buckets, " buckets x ", heads, " heads"), size);
    }
    return CheckFinite("values", rule.values);
  }

  absl::Status operator()(const AlibiRule& rule) const {
    const auto size = static_cast<std::int64_t>(rule.slopes.size());
    if (size != heads) return errors::InvalidField("slopes", absl::StrCat(heads, " (one per head)"), size);
    for (std::size_t i = 0; i < rule.slopes.size(); ++i) {
      if (std::abs(rule.slopes[i]) <= kMaxSlope) continue;
      return errors::InvalidField(absl::StrCat("slopes[", i, "]"), "a finite value up to 2^64", rule.slopes[i]);
    }
    return absl::OkStatus();
  }

  absl::Status operator()(const PerOffsetRule& rule) const {
    const auto size = static_cast<std::int64_t>(rule.values.size());
    if (size == 0 || size % heads != 0) {
      return errors::InvalidField("values", absl::StrCat("a multiple of ", heads, " heads, at least one offset"), size);
    }
    if (rule.min_offset < -kMaxStart || rule.min_offset > kMaxStart) {
      return errors::InvalidField("min_offset", absl::StrCat("at most ", kMaxStart, " either way"), rule.min_offset);
    }
    return CheckFinite("values", rule.values);
  }
};

// |offset|, without overflow for the smallest offset.
std::int64_t Distance(std::int64_t offset) {
  return std::abs(std::max(offset, -std::numeric_limits<std::int64_t>::max()));
}

struct IsBidirectional {
  bool operator()(const T5Rule& rule) const { return rule.bidirectional; }
  bool operator()(const AlibiRule& rule) const { return rule.bidirectional; }
  bool operator()(const PerOffsetRule& rule) const { return rule.min_offset < 0; }
};

struct ValueAt {
  std::int64_t heads;
  std::int64_t head;
  std::int64_t offset;
  std::int64_t bucket;  // of the offset, if the rule has buckets

  float operator()(const T5Rule& rule) const { return rule.values[static_cast<std::size_t>(bucket * heads + head)]; }
  float operator()(const AlibiRule& rule) const {
    return 0.0F - rule.slopes[static_cast<std::size_t>(head)] * static_cast<float>(Distance(offset));
  }
  float operator()(const PerOffsetRule& rule) const {
    const std::int64_t count = static_cast<std::int64_t>(rule.values.size()) / heads;
    const std::int64_t nearest = std::clamp(offset, rule.min_offset, rule.min_offset + count - 1);
    return rule.values[static_cast<std::size_t>(head * count + nearest - rule.min_offset)];
  }
};

// Bytes held before the per-offset form is made.
std::int64_t BytesBeforeForm(const Rule& rule) {
  struct Held {
    std::int64_t operator()(const T5Rule& t5) const {
      const std::int64_t buckets = BucketsPerSide(t5.num_buckets, t5.bidirectional);
      return Values(t5.values) + buckets * std::int64_t{sizeof(std::int64_t)};
    }
    std::int64_t operator()(const AlibiRule& alibi) const { return Values(alibi.slopes); }
    std::int64_t operator()(const PerOffsetRule& per_offset) const { return Values(per_offset.values); }
    static std::int64_t Values(const std::vector<float>& values) {
      return RuleBytes(static_cast<std::int64_t>(values.size()));
    }
  };
  return kTableOverhead + std::visit(Held{}, rule);
}

// Frees a vector's unused capacity, so that the bytes counted are the bytes held.
struct Shrink {
  void operator()(T5Rule& rule) const { rule.values.shrink_to_fit(); }
  void operator()(AlibiRule& rule) const { rule.slopes.shrink_to_fit(); }
  void operator()(PerOffsetRule& rule) const { rule.values.shrink_to_fit(); }
};

}  // namespace

absl::StatusOr<BiasTable> BiasTable::Create(std::int64_t heads, Rule rule, std::int64_t max_values,
                                            TableTicket ticket) {
  if (heads < 1) return errors::InvalidField("heads", "at least 1", heads);
  if (absl::Status valid = std::visit(Validator{heads}, rule); !valid.ok()) return valid;
  const std::int64_t before = BytesBeforeForm(rule);
  if (absl::Status taken = ticket.GrowTo(before); !taken.ok()) return taken;
  std::visit(Shrink{}, rule);
  auto state = std::make_shared<State>();
  if (const T5Rule* t5 = std::get_if<T5Rule>(&rule)) {
    const std::int64_t buckets = BucketsPerSide(t5->num_buckets, t5->bidirectional);
    state->first_offsets = FirstDistances(buckets, t5->max_distance);
  }
  const absl::StatusOr<FormSpan> span = SpanOf(heads, rule, state->first_offsets, max_values);
  if (!span.ok()) return span.status();
  state->bytes = before + span->bytes(heads);
  if (absl::Status taken = ticket.GrowTo(state->bytes); !taken.ok()) return taken;
  absl::StatusOr<OffsetForm> form = MakeOffsetForm(heads, rule, state->first_offsets, *span);
  if (!form.ok()) return form.status();
  state->ticket = std::move(ticket);
  state->heads = heads;
  state->rule = std::move(rule);
  state->form = *std::move(form);
  return BiasTable(std::move(state));
}

absl::Status BiasTable::CountIn(TableTicket ticket) {
  if (state_->ticket.has_account()) return absl::OkStatus();
  if (absl::Status taken = ticket.GrowTo(state_->bytes); !taken.ok()) return taken;
  state_->ticket = std::move(ticket);
  return absl::OkStatus();
}

bool BiasTable::bidirectional() const { return std::visit(IsBidirectional{}, state_->rule); }

std::optional<std::int64_t> BiasTable::Bucket(std::int64_t offset) const {
  const T5Rule* t5 = std::get_if<T5Rule>(&state_->rule);
  if (t5 == nullptr) return std::nullopt;
  if (offset >= 0) return BucketOfDistance(state_->first_offsets, offset);
  if (!t5->bidirectional) return 0;
  return static_cast<std::int64_t>(state_->first_offsets.size()) +
         BucketOfDistance(state_->first_offsets, Distance(offset));
}

OffsetRange BiasTable::OffsetsOf(std::int64_t bucket) const {
  const auto side = static_cast<std::int64_t>(state_->first_offsets.size());
  const bool after = bucket >= side;  // keys after the query
  const auto rank = static_cast<std::size_t>(after ? bucket - side : bucket);
  const std::int64_t nearest = state_->first_offsets[rank];
  std::optional<std::int64_t> farthest;
  if (rank + 1 < state_->first_offsets.size()) farthest = state_->first_offsets[rank + 1] - 1;
  if (after) return {farthest ? std::optional<std::int64_t>(-*farthest) : std::nullopt, -nearest};
  if (bucket == 0 && !bidirectional()) return {std::nullopt, farthest};
  return {nearest, farthest};
}

float BiasTable::Value(std::int64_t head, std::int64_t offset) const {
  const std::int64_t bucket = Bucket(offset).value_or(0);
  return std::visit(ValueAt{state_->heads, head, offset, bucket}, state_->rule);
}

}  // namespace attnd::bias
