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

// Offsets, and so positions, stay far from overflow when they are added and subtracted.
constexpr std::int64_t kMaxStart = std::int64_t{1} << 32;
// A slope times any offset stays finite.
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

// |offset|, for every offset.
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
  std::int64_t bucket;  // of the offset, where the rule has buckets

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

}  // namespace

absl::StatusOr<BiasTable> BiasTable::Create(std::int64_t heads, Rule rule, std::int64_t max_values) {
  if (heads < 1) return errors::InvalidField("heads", "at least 1", heads);
  if (absl::Status valid = std::visit(Validator{heads}, rule); !valid.ok()) return valid;
  BiasTable table;
  if (const T5Rule* t5 = std::get_if<T5Rule>(&rule)) {
    const std::int64_t buckets = BucketsPerSide(t5->num_buckets, t5->bidirectional);
    table.first_offsets_ = FirstDistances(buckets, t5->max_distance);
  }
  absl::StatusOr<OffsetForm> form = MakeOffsetForm(heads, rule, table.first_offsets_, max_values);
  if (!form.ok()) return form.status();
  table.heads_ = heads;
  table.rule_ = std::move(rule);
  table.form_ = *std::move(form);
  return table;
}

bool BiasTable::bidirectional() const { return std::visit(IsBidirectional{}, rule_); }

std::optional<std::int64_t> BiasTable::Bucket(std::int64_t offset) const {
  const T5Rule* t5 = std::get_if<T5Rule>(&rule_);
  if (t5 == nullptr) return std::nullopt;
  if (offset >= 0) return BucketOfDistance(first_offsets_, offset);
  if (!t5->bidirectional) return 0;
  return static_cast<std::int64_t>(first_offsets_.size()) + BucketOfDistance(first_offsets_, Distance(offset));
}

OffsetRange BiasTable::OffsetsOf(std::int64_t bucket) const {
  const auto side = static_cast<std::int64_t>(first_offsets_.size());
  const bool after = bucket >= side;  // keys after the query
  const auto rank = static_cast<std::size_t>(after ? bucket - side : bucket);
  const std::int64_t nearest = first_offsets_[rank];
  std::optional<std::int64_t> farthest;
  if (rank + 1 < first_offsets_.size()) farthest = first_offsets_[rank + 1] - 1;
  if (after) return {farthest ? std::optional<std::int64_t>(-*farthest) : std::nullopt, -nearest};
  if (bucket == 0 && !bidirectional()) return {std::nullopt, farthest};
  return {nearest, farthest};
}

float BiasTable::Value(std::int64_t head, std::int64_t offset) const {
  const std::int64_t bucket = Bucket(offset).value_or(0);
  return std::visit(ValueAt{heads_, head, offset, bucket}, rule_);
}

}  // namespace attnd::bias
