#include "bias/offset_form.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "errors/field_error.h"
#include "tensor/checked_size.h"

namespace attnd::bias {
namespace {

// A form for `heads` heads, filled with zeros.
OffsetForm Zeros(std::int64_t heads, const FormSpan& span) {
  OffsetForm form;
  form.min_offset = span.min_offset;
  form.max_offset = span.max_offset;
  const auto per_head = static_cast<std::size_t>(heads);
  form.values.assign(per_head * static_cast<std::size_t>(span.count()), 0.0F);
  form.constant.assign(per_head, 0.0F);
  form.low_value.assign(per_head, 0.0F);
  form.high_slope.assign(per_head, 0.0F);
  form.low_slope.assign(per_head, 0.0F);
  return form;
}

// Sets values, constants and low values from `value(head, offset)`, which is constant beyond the ends of the form.
template <typename Value>
absl::Status Fill(OffsetForm& form, const Value& value) {
  std::size_t next = 0;
  for (std::size_t head = 0; head < form.constant.size(); ++head) {
    const float constant = value(head, form.max_offset);
    form.constant[head] = constant;
    for (std::int64_t offset = form.max_offset; offset >= form.min_offset; --offset) {
      const auto relative =
          static_cast<float>(static_cast<double>(value(head, offset)) - static_cast<double>(constant));
      if (!std::isfinite(relative)) {
        return errors::InvalidField("values", "differences within a head that a float holds",
                                    absl::StrCat("head ", head, " with a larger one"));
      }
      form.values[next++] = relative;
    }
    form.low_value[head] = form.values[next - 1];
  }
  return absl::OkStatus();
}

// The offsets that a rule needs, and the field that determines how many.
struct Spanner {
  std::int64_t heads;
  const std::vector<std::int64_t>& first_distances;

  struct Result {
    absl::string_view field;
    FormSpan span;
  };
  Result operator()(const T5Rule& rule) const {
    const std::int64_t last = first_distances.back();
    return {"max_distance", {rule.bidirectional ? -last : 0, last}};
  }
  Result operator()(const AlibiRule&) const { return {"slopes", {0, 0}}; }
  Result operator()(const PerOffsetRule& rule) const {
    const std::int64_t count = static_cast<std::int64_t>(rule.values.size()) / heads;
    return {"values", {rule.min_offset, rule.min_offset + count - 1}};
  }
};

// Finds the bucket of a distance without a search, if successive distances change by one.
class BucketCursor {
 public:
  explicit BucketCursor(const std::vector<std::int64_t>& first_distances) : first_(first_distances) {}

  std::size_t Of(std::int64_t distance) {
    while (bucket_ + 1 < first_.size() && first_[bucket_ + 1] <= distance) ++bucket_;
    while (first_[bucket_] > distance) --bucket_;
    return bucket_;
  }

 private:
  const std::vector<std::int64_t>& first_;
  std::size_t bucket_ = 0;
};

struct Maker {
  std::int64_t heads;
  const std::vector<std::int64_t>& first_distances;
  const FormSpan& span;

  absl::StatusOr<OffsetForm> operator()(const T5Rule& rule) const {
    OffsetForm form = Zeros(heads, span);
    BucketCursor cursor(first_distances);
    const auto stride = static_cast<std::size_t>(heads);
    const absl::Status filled = Fill(form, [&](std::size_t head, std::int64_t offset) {
      const std::size_t side = offset < 0 ? first_distances.size() : 0;
      const std::size_t bucket = side + cursor.Of(offset < 0 ? -offset : offset);
      return rule.values[bucket * stride + head];
    });
    if (!filled.ok()) return filled;
    return form;
  }

  absl::StatusOr<OffsetForm> operator()(const AlibiRule& rule) const {
    OffsetForm form = Zeros(heads, span);
    form.high_slope = rule.slopes;
    form.low_slope = rule.slopes;
    return form;
  }

  absl::StatusOr<OffsetForm> operator()(const PerOffsetRule& rule) const {
    const std::size_t count = rule.values.size() / static_cast<std::size_t>(heads);
    OffsetForm form = Zeros(heads, span);
    const absl::Status filled = Fill(form, [&](std::size_t head, std::int64_t offset) {
      return rule.values[head * count + static_cast<std::size_t>(offset - rule.min_offset)];
    });
    if (!filled.ok()) return filled;
    return form;
  }
};

}  // namespace

absl::StatusOr<FormSpan> SpanOf(std::int64_t heads, const Rule& rule, const std::vector<std::int64_t>& first_distances,
                                std::int64_t max_values) {
  const auto [field, span] = std::visit(Spanner{heads, first_distances}, rule);
  const std::optional<std::int64_t> values = tensor::CheckedProduct({heads, span.count()});
  if (values && *values <= max_values) return span;
  return errors::FieldError(absl::StatusCode::kResourceExhausted, field,
                            absl::StrCat("a table of at most ", max_values, " values (max_table_values)"),
                            absl::StrCat(span.count(), " different offsets for each of ", heads, " heads"));
}

absl::StatusOr<OffsetForm> MakeOffsetForm(std::int64_t heads, const Rule& rule,
                                          const std::vector<std::int64_t>& first_distances, const FormSpan& span) {
  return std::visit(Maker{heads, first_distances, span}, rule);
}

}  // namespace attnd::bias
