#include "bias/comparison_axes.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "bias/drawing.h"

namespace attnd::bias {
namespace {

constexpr double kTickGap = 10;     // pixels between the labels of ticks
constexpr double kCharacter = 6.6;  // width of one in such a label
constexpr std::int64_t kMostSteps = 8;
constexpr double kFaintest = 10;  // see SpanOf

}  // namespace

std::int64_t PanelColumns(std::size_t panels) {
  if (panels <= 1) return 1;
  if (panels <= 4) return 2;
  return panels <= 6 || panels == 9 ? 3 : 4;
}

PanelSize SizeOfPanels(std::int64_t columns) {
  if (columns == 1) return {760, 400};
  if (columns == 2) return {430, 260};
  return columns == 3 ? PanelSize{300, 200} : PanelSize{236, 170};
}

OffsetAxis::OffsetAxis(const Comparison& comparison, PanelSize size)
    : log_(comparison.log_axis()),
      min_offset_(comparison.min_offset()),
      max_offset_(comparison.max_offset()),
      low_(Place(min_offset_)),
      high_(Place(max_offset_)),
      width_(size.width) {}

double OffsetAxis::Place(std::int64_t offset) const {
  if (!log_) return static_cast<double>(offset);
  const double place = std::log2(1 + std::fabs(static_cast<double>(offset)));
  return offset < 0 ? -place : place;
}

double OffsetAxis::X(std::int64_t offset) const {
  return kPanelInset + (width_ - 2 * kPanelInset) * (Place(offset) - low_) / (high_ - low_);
}

std::vector<std::int64_t> OffsetAxis::Ticks() const {
  const std::size_t characters = absl::StrCat(min_offset_ < 0 ? min_offset_ : max_offset_).size();
  const double label = kCharacter * static_cast<double>(characters);
  // A label at the edge must not touch that of the next panel.
  const auto has_room = [&](std::int64_t tick) { return X(tick) + label / 2 <= width_ + kPanelGap / 2 - 3; };
  std::vector<std::int64_t> ticks = {0};
  if (log_) {
    double last = X(0);
    for (std::int64_t power = 1; power <= max_offset_; power *= 2) {
      if (X(power) - last < label + kTickGap || !has_room(power)) continue;
      ticks.push_back(power);
      last = X(power);
    }
  } else {
    std::int64_t step = 1;
    while (step <= max_offset_ && (X(step) - X(0) < label + kTickGap || max_offset_ / step > kMostSteps)) step *= 2;
    for (std::int64_t tick = step; tick <= max_offset_ && has_room(tick); tick += step) ticks.push_back(tick);
  }
  if (min_offset_ == 0) return ticks;
  const std::size_t count = ticks.size();
  for (std::size_t i = 1; i < count; ++i) ticks.push_back(-ticks[i]);
  std::sort(ticks.begin(), ticks.end());
  return ticks;
}

std::vector<double> ValueSpan::Ticks() const {
  const double step = RoundStep(high - low, 5);
  std::vector<double> ticks;
  const auto first = static_cast<std::int64_t>(std::ceil(low / step));
  const auto last = static_cast<std::int64_t>(std::floor(high / step));
  for (std::int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

ValueSpan SpanOf(const Comparison& comparison) {
  ValueSpan span{0, 0, false};
  bool any = false;
  for (std::size_t s = 0; s < comparison.sources().size(); ++s) {
    const bool falls = !ConstantFrom(comparison.sources()[s].table).has_value();
    for (const std::int64_t panel : comparison.panels()) {
      const std::optional<std::int64_t> head = comparison.HeadOf(s, panel);
      if (!head.has_value()) continue;
      const std::vector<float>& values = comparison.Values(s, *head);
      const auto [least, most] = std::minmax_element(values.begin(), values.end());
      const double high = static_cast<double>(*most);
      double low = static_cast<double>(*least);
      if (falls && low < high - kFaintest) {
        low = high - kFaintest;
        span.cut = true;
      }
      span.low = any ? std::min(span.low, low) : low;
      span.high = any ? std::max(span.high, high) : high;
      any = true;
    }
  }
  const double room = span.high > span.low ? (span.high - span.low) * 0.04 : 0.5 + std::fabs(span.high) * 0.01;
  return {span.low - room, span.high + room, span.cut};
}

}  // namespace attnd::bias
