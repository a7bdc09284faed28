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

// A form of `heads` heads from min_offset to max_offset, all zeros. `field` of the rule is what makes it long.
absl::StatusOr<OffsetForm> Zeros(absl::string_view field, std::int64_t heads, std::int64_t min_offset,
                                 std::int64_t max_offset, std::int64_t max_values) {
  const std::int64_t count = max_offset - min_offset + 1;
  const std::optional<std::int64_t> values = tensor::CheckedProduct({heads, count});
  if (!values || *values > max_values) {
    return errors::FieldError(absl::StatusCode::kResourceExhausted, field,
                              absl::StrCat("a table of at most ", max_values, " values (max_table_values)"),
                              absl::StrCat(count, " different offsets for each of ", heads, " heads"));
  }
  OffsetForm form;
  form.min_offset = min_offset;
  form.max_offset = max_offset;
  form.values.assign(static_cast<std::size_t>(*values), 0.0F);
  const auto per_head = static_cast<std::size_t>(heads);
  form.constant.assign(per_head, 0.0F);
  form.low_value.assign(per_head, 0.0F);
  form.high_slope.assign(per_head, 0.0F);
  form.low_slope.assign(per_head, 0.0F);
  return form;
}

// Fills in values, constants and low values from `value(head, offset)`, which is constant beyond the form's ends.
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

struct Maker {
  std::int64_t heads;
  const std::vector<std::int64_t>& first_distances;
  std::int64_t max_values;

  absl::StatusOr<OffsetForm> operator()(const T5Rule& rule) const {
    const std::int64_t last = first_distances.back();
    absl::StatusOr<OffsetForm> form = Zeros("max_distance", heads, rule.bidirectional ? -last : 0, last, max_values);
    if (!form.ok()) return form;
    // Buckets by distance, so that filling in looks none up. They are fewer than the values in memory.
    std::vector<std::uint32_t> bucket_of(static_cast<std::size_t>(last) + 1);
    std::uint32_t bucket = 0;
    for (std::size_t distance = 0; distance < bucket_of.size(); ++distance) {
      while (bucket + 1 < first_distances.size() &&
             first_distances[bucket + 1] <= static_cast<std::int64_t>(distance)) {
        ++bucket;
      }
      bucket_of[distance] = bucket;
    }
    const auto stride = static_cast<std::size_t>(heads);
    const absl::Status filled = Fill(*form, [&](std::size_t head, std::int64_t offset) {
      const std::size_t side = offset < 0 ? first_distances.size() : 0;
      const std::size_t bucket = side + bucket_of[static_cast<std::size_t>(offset < 0 ? -offset : offset)];
      return rule.values[bucket * stride + head];
    });
    if (!filled.ok()) return filled;
    return form;
  }

  absl::StatusOr<OffsetForm> operator()(const AlibiRule& rule) const {
    absl::StatusOr<OffsetForm> form = Zeros("slopes", heads, 0, 0, max_values);
    if (!form.ok()) return form;
    form->high_slope = rule.slopes;
    form->low_slope = rule.slopes;
    return form;
  }

  absl::StatusOr<OffsetForm> operator()(const PerOffsetRule& rule) const {
    const std::size_t count = rule.values.size() / static_cast<std::size_t>(heads);
    const std::int64_t max_offset = rule.min_offset + static_cast<std::int64_t>(count) - 1;
    absl::StatusOr<OffsetForm> form = Zeros("values", heads, rule.min_offset, max_offset, max_values);
    if (!form.ok()) return form;
    const absl::Status filled = Fill(*form, [&](std::size_t head, std::int64_t offset) {
      return rule.values[head * count + static_cast<std::size_t>(offset - rule.min_offset)];
    });
    if (!filled.ok()) return filled;
    return form;
  }
};

}  // namespace

absl::StatusOr<OffsetForm> MakeOffsetForm(std::int64_t heads, const Rule& rule,
                                          const std::vector<std::int64_t>& first_distances, std::int64_t max_values) {
  return std::visit(Maker{heads, first_distances, max_values}, rule);
}

}  // namespace attnd::bias
