#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "bias/comparison.h"
#include "bias/number_text.h"

namespace attnd::bias {
namespace {

// Each source has a colour (4.5:1 and more on white and on the grey beyond the trained length) and a dash of its own,
// so that the curves can be told apart without colour.
struct Stroke {
  const char* colour;
  const char* dashes;
};
constexpr Stroke kStrokes[] = {
    {"#005a9e", ""},     {"#a84300", "7 4"}, {"#006b52", "2 3"},         {"#7d3280", "10 3 2 3"},
    {"#20242c", "14 5"}, {"#9c2740", "4 2"}, {"#4a5f00", "8 3 2 3 2 3"}, {"#5a6272", "1 3"}};

// Sizes in pixels. `kInset` keeps a curve's stroke inside its panel.
constexpr double kMargin = 32, kLeft = 92, kTop = 96, kLegendRow = 24, kGapX = 26, kGapY = 60, kInset = 4;
constexpr double kTickGap = 10;     // between tick labels
constexpr double kCharacter = 6.6;  // of a tick label
constexpr double kFaintest = 10;    // how far below a source's highest value the axis goes: e^-10 of the weight
constexpr std::size_t kMaxTitle = 80, kMaxName = 40;  // bytes; longer lists and names give way to numbers and letters

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Number(double value) { return absl::StrReplaceAll(RoundedText(value, 6), {{"-", "\u2212"}}); }

// How many panels stand side by side.
std::int64_t Columns(std::size_t panels) {
  if (panels <= 1) return 1;
  if (panels <= 4) return 2;
  return panels <= 6 || panels == 9 ? 3 : 4;
}

struct Size {
  double width, height;
};
Size PanelSize(std::int64_t columns) {
  return columns == 1 ? Size{760, 400} : columns == 2 ? Size{430, 260} : columns == 3 ? Size{300, 200} : Size{236, 170};
}

// 1, 2 or 5 times a power of ten, so that a range has at most five steps.
double RoundStep(double range) {
  const double power = std::pow(10.0, std::floor(std::log10(range)));
  for (const double factor : {0.2, 0.5, 1.0, 2.0}) {
    if (range / (power * factor) <= 5) return power * factor;
  }
  return power * 5;
}

// Where offsets lie across a panel.
class Across {
 public:
  Across(const Comparison& comparison, double width)
      : log_(comparison.log_axis()),
        low_(Place(comparison.min_offset())),
        high_(Place(comparison.max_offset())),
        width_(width) {}

  double X(std::int64_t offset) const {
    return kInset + (width_ - 2 * kInset) * (Place(offset) - low_) / (high_ - low_);
  }

  // Round offsets whose labels have room.
  std::vector<std::int64_t> Ticks(const Comparison& comparison) const {
    const double label = kCharacter * static_cast<double>(absl::StrCat(comparison.min_offset()).size() > 1
                                                              ? absl::StrCat(comparison.min_offset()).size()
                                                              : absl::StrCat(comparison.max_offset()).size());
    std::vector<std::int64_t> ticks = {0};
    double last = X(0);
    if (log_) {
      for (std::int64_t power = 1; power <= comparison.max_offset(); power *= 2) {
        if (X(power) - last < label + kTickGap) continue;
        ticks.push_back(power);
        last = X(power);
      }
    } else {
      std::int64_t step = 1;
      while (X(step) - X(0) < label + kTickGap && step <= comparison.max_offset()) step *= 2;
      while (comparison.max_offset() / step > 8) step *= 2;
      for (std::int64_t tick = step; tick <= comparison.max_offset(); tick += step) ticks.push_back(tick);
    }
    if (comparison.min_offset() == 0) return ticks;
    const std::size_t count = ticks.size();
    for (std::size_t i = 1; i < count; ++i) ticks.push_back(-ticks[i]);
    std::sort(ticks.begin(), ticks.end());
    return ticks;
  }

 private:
  double Place(std::int64_t offset) const {
    if (!log_) return static_cast<double>(offset);
    const double place = std::log2(1 + std::fabs(static_cast<double>(offset)));
    return offset < 0 ? -place : place;
  }

  const bool log_;
  const double low_, high_, width_;
};

// The values that the panels' common axis spans.
struct Span {
  double low, high;
  bool cut;  // some values lie below it
};

Span ValueSpan(const Comparison& comparison) {
  Span span{0, 0, false};
  bool any = false;
  for (std::size_t s = 0; s < comparison.sources().size(); ++s) {
    for (const std::int64_t panel : comparison.panels()) {
      const std::optional<std::int64_t> head = comparison.HeadOf(s, panel);
      if (!head.has_value()) continue;
      const std::vector<float>& values = comparison.Values(s, *head);
      const auto [least, most] = std::minmax_element(values.begin(), values.end());
      const double high = static_cast<double>(*most);
      const double low = std::max(static_cast<double>(*least), high - kFaintest);
      span.cut |= low > static_cast<double>(*least);
      span.low = any ? std::min(span.low, low) : low;
      span.high = any ? std::max(span.high, high) : high;
      any = true;
    }
  }
  const double room = span.high > span.low ? (span.high - span.low) * 0.04 : 0.5;
  return {span.low - room, span.high + room, span.cut};
}

class Drawing {
 public:
  explicit Drawing(const Comparison& comparison)
      : comparison_(comparison),
        columns_(Columns(comparison.panels().size())),
        panel_(PanelSize(columns_)),
        plots_top_(kTop + kLegendRow * static_cast<double>(comparison.sources().size()) + 44),
        across_(comparison, panel_.width),
        span_(ValueSpan(comparison)) {}

  std::string Draw() {
    Heading();
    for (std::size_t i = 0; i < comparison_.panels().size(); ++i) Panel(i);
    AxisNames();
    return Finish();
  }

 private:
  void Add(const std::string& element) { absl::StrAppend(&body_, element, "\n"); }

  void Text(double x, double y, double size, const std::string& content, const std::string& attributes = "") {
    Add(absl::StrFormat(R"(<text x="%.1f" y="%.1f" font-size="%g"%s>%s</text>)", x, y, size, attributes, content));
  }

  std::string Title() const {
    const std::string names = absl::StrJoin(
        comparison_.sources(), ", ", [](std::string* out, const ComparedSource& s) { absl::StrAppend(out, s.label); });
    return absl::StrCat("Bias by offset: ",
                        names.size() <= kMaxTitle ? names : absl::StrCat(comparison_.sources().size(), " sources"));
  }

  void Heading() {
    Text(kMargin, 42, 20, Escaped(Title()), R"( font-weight="600")");
    std::string subtitle = "added to each logit; 1 more is 2.7 times the weight";
    if (comparison_.trained_length().has_value()) {
      absl::StrAppend(&subtitle, "; grey: beyond the trained length of ", *comparison_.trained_length());
    }
    if (span_.cut) absl::StrAppend(&subtitle, "; below the axis: less than e^\u221210 of the most");
    Text(kMargin, 66, 13.5, subtitle, kGrey);
    for (std::size_t s = 0; s < comparison_.sources().size(); ++s) {
      const ComparedSource& source = comparison_.sources()[s];
      const double y = kTop + kLegendRow * static_cast<double>(s);
      Add(absl::StrFormat(R"(<path d="M%.1f %.1fH%.1f"%s/>)", kMargin, y, kMargin + 56, StrokeOf(s)));
      const std::string name = source.label.size() > kMaxName ? "source " + Letter(s) : source.label;
      Text(kMargin + 68, y + 4.5, 13.5,
           absl::StrCat(R"(<tspan font-weight="600">)", Escaped(name), R"(</tspan><tspan dx="10" fill="#5a6272">)",
                        Escaped(Described(source)), "</tspan>"));
    }
  }

  static std::string Letter(std::size_t s) { return std::string(1, static_cast<char>('A' + s)); }

  static std::string StrokeOf(std::size_t s) {
    const Stroke& stroke = kStrokes[s];
    std::string attributes =
        absl::StrFormat(R"( fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round")", stroke.colour);
    if (*stroke.dashes != '\0') absl::StrAppend(&attributes, " stroke-dasharray=\"", stroke.dashes, "\"");
    return attributes;
  }

  double Y(double value) const {
    // Far below the axis, so that a curve leaves the panel, and not so far that a viewer minds.
    const double within = std::max(value, span_.low - (span_.high - span_.low));
    return kInset + (panel_.height - 2 * kInset) * (span_.high - within) / (span_.high - span_.low);
  }

  void Panel(std::size_t i) {
    const auto column = static_cast<std::int64_t>(i) % columns_, row = static_cast<std::int64_t>(i) / columns_;
    const double left = kLeft + static_cast<double>(column) * (panel_.width + kGapX);
    const double top = plots_top_ + static_cast<double>(row) * (panel_.height + kGapY);
    const std::int64_t panel = comparison_.panels()[i];
    std::string name = comparison_.PanelName(panel);
    for (std::size_t s = 0; s < comparison_.sources().size(); ++s) {
      if (comparison_.HeadOf(s, panel).has_value()) continue;
      absl::StrAppend(&name, "; ", Escaped(comparison_.sources()[s].label), " has none");
    }
    Text(left, top - 8, 13, name, R"( font-weight="600")");
    Add(absl::StrFormat(R"(<svg x="%.1f" y="%.1f" width="%g" height="%g">)", left, top, panel_.width, panel_.height));
    Beyond();
    Grid();
    for (std::size_t s = 0; s < comparison_.sources().size(); ++s) {
      const std::optional<std::int64_t> head = comparison_.HeadOf(s, panel);
      if (!head.has_value()) continue;
      Add(absl::StrFormat(R"(<path d="%s"%s/>)", Curve(comparison_.FirstOffset(s), comparison_.Values(s, *head)),
                          StrokeOf(s)));
    }
    Add("</svg>");
    Add(absl::StrFormat(R"(<rect x="%.1f" y="%.1f" width="%g" height="%g" fill="none" stroke="#7a8290"/>)", left, top,
                        panel_.width, panel_.height));
    for (const std::int64_t tick : across_.Ticks(comparison_)) {
      Text(left + across_.X(tick), top + panel_.height + 17, 11.5, Number(static_cast<double>(tick)),
           std::string(R"( text-anchor="middle")") + kGrey);
    }
    if (column > 0) return;
    for (const double tick : ValueTicks()) {
      Text(left - 8, top + Y(tick) + 4, 11.5, Number(tick), std::string(R"( text-anchor="end")") + kGrey);
    }
  }

  // The offsets that no trained sequence had, in grey, with a line where they begin.
  void Beyond() {
    if (!comparison_.trained_length().has_value() || *comparison_.trained_length() > comparison_.max_offset()) return;
    const std::int64_t length = *comparison_.trained_length();
    const double x = (across_.X(length - 1) + across_.X(length)) / 2;
    Add(absl::StrFormat(R"(<rect x="%.1f" width="%.1f" height="%g" fill="#eef0f4"/>)", x, panel_.width - x,
                        panel_.height));
    std::string lines = absl::StrFormat("M%.1f 0V%g", x, panel_.height);
    if (comparison_.min_offset() < 0) {
      const double mirrored = panel_.width - x;
      Add(absl::StrFormat(R"(<rect width="%.1f" height="%g" fill="#eef0f4"/>)", mirrored, panel_.height));
      absl::StrAppendFormat(&lines, "M%.1f 0V%g", mirrored, panel_.height);
    }
    Add(absl::StrFormat(R"(<path d="%s" stroke="#5a6272"/>)", lines));
  }

  void Grid() {
    std::string lines;
    for (const std::int64_t tick : across_.Ticks(comparison_)) {
      absl::StrAppendFormat(&lines, "M%.1f 0V%g", across_.X(tick), panel_.height);
    }
    for (const double tick : ValueTicks()) absl::StrAppendFormat(&lines, "M0 %.1fH%g", Y(tick), panel_.width);
    Add(absl::StrFormat(R"(<path d="%s" stroke="#d5d9e0" stroke-width="0.8"/>)", lines));
  }

  std::vector<double> ValueTicks() const {
    const double step = RoundStep(span_.high - span_.low);
    std::vector<double> ticks;
    for (double i = std::ceil(span_.low / step); i <= std::floor(span_.high / step); ++i) ticks.push_back(i * step);
    return ticks;
  }

  // A path through all values. Of those that fall into one column of pixels the first, lowest, highest and last are
  // drawn, which looks the same (Jugel et al. 2014, "M4"); level stretches are one step.
  std::string Curve(std::int64_t first, const std::vector<float>& values) const {
    std::vector<std::pair<std::string, std::string>> points;
    const auto add = [&](std::size_t i) {
      std::pair<std::string, std::string> point = {
          absl::StrFormat("%.1f", across_.X(first + static_cast<std::int64_t>(i))),
          absl::StrFormat("%.1f", Y(static_cast<double>(values[i])))};
      const std::size_t n = points.size();
      if (n > 1 && points[n - 1].second == point.second && points[n - 2].second == point.second) points.pop_back();
      points.push_back(std::move(point));
    };
    for (std::size_t begin = 0; begin < values.size();) {
      const double column = std::floor(across_.X(first + static_cast<std::int64_t>(begin)));
      std::size_t end = begin + 1, least = begin, most = begin;
      for (; end < values.size() && std::floor(across_.X(first + static_cast<std::int64_t>(end))) == column; ++end) {
        if (values[end] < values[least]) least = end;
        if (values[end] > values[most]) most = end;
      }
      std::vector<std::size_t> kept = {begin, least, most, end - 1};
      std::sort(kept.begin(), kept.end());
      kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
      for (const std::size_t i : kept) add(i);
      begin = end;
    }
    std::string path = absl::StrCat("M", points[0].first, " ", points[0].second);
    for (std::size_t i = 1; i < points.size(); ++i) {
      const auto& [x, y] = points[i];
      if (y == points[i - 1].second) {
        absl::StrAppend(&path, "H", x);
      } else {
        absl::StrAppend(&path, "L", x, " ", y);
      }
    }
    return path;
  }

  double PlotsHeight() const {
    const auto rows = (static_cast<std::int64_t>(comparison_.panels().size()) + columns_ - 1) / columns_;
    return static_cast<double>(rows) * (panel_.height + kGapY) - kGapY;
  }
  double PlotsWidth() const { return static_cast<double>(columns_) * (panel_.width + kGapX) - kGapX; }

  void AxisNames() {
    const std::string sides = comparison_.min_offset() < 0 ? "; below 0: keys after the query" : "";
    Text(kLeft + PlotsWidth() / 2, plots_top_ + PlotsHeight() + 44, 13.5,
         absl::StrCat("offset, query position \u2212 key position", comparison_.log_axis() ? ", log scale" : "", sides),
         std::string(R"( text-anchor="middle")") + kGrey);
    const double middle = plots_top_ + PlotsHeight() / 2;
    Text(kMargin + 4, middle, 13.5, "bias",
         absl::StrFormat(R"svg( text-anchor="middle" fill="#5a6272" transform="rotate(-90 %.1f %.1f)")svg", kMargin + 4,
                         middle));
  }

  std::string Finish() const {
    const double width = kLeft + PlotsWidth() + kMargin, height = plots_top_ + PlotsHeight() + 44 + kMargin - 8;
    return absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
        "font-family=\"Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif\" fill=\"#20242c\">\n"
        "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
        width, height, width, height, Escaped(Title()), body_);
  }

  static constexpr const char* kGrey = R"( fill="#5a6272")";

  const Comparison& comparison_;
  const std::int64_t columns_;
  const Size panel_;
  const double plots_top_;
  const Across across_;
  const Span span_;
  std::string body_;
};

}  // namespace

std::string ComparisonSvg(const Comparison& comparison) { return Drawing(comparison).Draw(); }

}  // namespace attnd::bias
