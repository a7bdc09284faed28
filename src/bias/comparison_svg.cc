#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "bias/comparison.h"
#include "bias/comparison_axes.h"
#include "bias/drawing.h"
#include "bias/number_text.h"

namespace attnd::bias {
namespace {

// Each source has its own colour (contrast 4.5:1 or more on white, and on the grey beyond the trained length) and its
// own dashes, so that the curves can be told apart without colour.
struct Stroke {
  const char* colour;
  const char* dashes;
};
constexpr Stroke kStrokes[] = {
    {"#005a9e", ""},     {"#a84300", "7 4"}, {"#006b52", "2 3"},         {"#7d3280", "10 3 2 3"},
    {"#20242c", "14 5"}, {"#9c2740", "4 2"}, {"#4a5f00", "8 3 2 3 2 3"}, {"#5a6272", "1 3"}};

constexpr double kPageMargin = 32, kLeft = 92, kTop = 116, kLegendRow = 24, kGapY = 60;  // pixels
constexpr std::size_t kMaxTitle = 80, kMaxName = 40;  // bytes; longer titles show a count, longer names a letter

std::string AxisNumber(double value) { return Minus(RoundedText(value, 6)); }

class Drawing {
 public:
  explicit Drawing(const Comparison& comparison)
      : comparison_(comparison),
        columns_(PanelColumns(comparison.panels().size())),
        panel_(SizeOfPanels(columns_)),
        plots_top_(kTop + kLegendRow * static_cast<double>(comparison.sources().size()) + 44),
        across_(comparison, panel_),
        span_(SpanOf(comparison)) {}

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
    Text(kPageMargin, 42, 20, Escaped(Title()), R"( font-weight="600")");
    Text(kPageMargin, 66, 13.5, "added to each logit: 1 more is 2.7 times the weight", kGrey);
    std::vector<std::string> notes;
    if (BeyondIsShown()) {
      notes.push_back(absl::StrCat("grey: beyond the trained length of ", *comparison_.trained_length()));
    }
    if (span_.cut) {
      notes.push_back("below the axis: less than 1/20,000 of a curve's largest weight");
    }
    if (!notes.empty()) Text(kPageMargin, 87, 13.5, absl::StrJoin(notes, "; "), kGrey);
    for (std::size_t s = 0; s < comparison_.sources().size(); ++s) {
      const ComparedSource& source = comparison_.sources()[s];
      const double y = kTop + kLegendRow * static_cast<double>(s);
      Add(absl::StrFormat(R"(<path d="M%.1f %.1fH%.1f"%s/>)", kPageMargin, y, kPageMargin + 56, StrokeOf(s)));
      const std::string name = source.label.size() > kMaxName ? "source " + Letter(s) : source.label;
      Text(kPageMargin + 68, y + 4.5, 13.5,
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
    // Clipped far enough below the axis that the curve leaves the panel, but not so far that a viewer has trouble with
    // it.
    const double within = std::max(value, span_.low - (span_.high - span_.low));
    return kPanelInset + (panel_.height - 2 * kPanelInset) * (span_.high - within) / (span_.high - span_.low);
  }

  void Panel(std::size_t i) {
    const auto column = static_cast<std::int64_t>(i) % columns_, row = static_cast<std::int64_t>(i) / columns_;
    const double left = kLeft + static_cast<double>(column) * (panel_.width + kPanelGap);
    const double top = plots_top_ + static_cast<double>(row) * (panel_.height + kGapY);
    const std::int64_t panel = comparison_.panels()[i];
    std::string name = comparison_.PanelName(panel);
    const std::size_t sources = comparison_.sources().size();
    std::size_t shown = 0;
    for (std::size_t s = 0; s < sources; ++s) shown += comparison_.HeadOf(s, panel).has_value() ? 1 : 0;
    if (shown < sources) absl::StrAppend(&name, " (", shown, " of ", sources, " sources)");
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
    for (const std::int64_t tick : across_.Ticks()) {
      Text(left + across_.X(tick), top + panel_.height + 17, 11.5, AxisNumber(static_cast<double>(tick)),
           std::string(R"( text-anchor="middle")") + kGrey);
    }
    if (column > 0) return;
    for (const double tick : span_.Ticks()) {
      Text(left - 8, top + Y(tick) + 4, 11.5, AxisNumber(tick), std::string(R"( text-anchor="end")") + kGrey);
    }
  }

  bool BeyondIsShown() const {
    return comparison_.trained_length().has_value() && *comparison_.trained_length() <= comparison_.max_offset();
  }

  // Paints the offsets that no trained sequence had grey, with a line where they begin.
  void Beyond() {
    if (!BeyondIsShown()) return;
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
    for (const std::int64_t tick : across_.Ticks()) {
      absl::StrAppendFormat(&lines, "M%.1f 0V%g", across_.X(tick), panel_.height);
    }
    for (const double tick : span_.Ticks()) absl::StrAppendFormat(&lines, "M0 %.1fH%g", Y(tick), panel_.width);
    Add(absl::StrFormat(R"(<path d="%s" stroke="#d5d9e0" stroke-width="0.8"/>)", lines));
  }

  // A path through all values. Of the values in one column of pixels, it draws the first, lowest, highest and last,
  // which looks the same (Jugel et al. 2014, "M4"). A level stretch is one step.
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
  double PlotsWidth() const { return static_cast<double>(columns_) * (panel_.width + kPanelGap) - kPanelGap; }

  void AxisNames() {
    const std::string sides = comparison_.min_offset() < 0 ? "; below 0: keys after the query" : "";
    Text(kLeft + PlotsWidth() / 2, plots_top_ + PlotsHeight() + 44, 13.5,
         absl::StrCat("offset, query position \u2212 key position", comparison_.log_axis() ? ", log scale" : "", sides),
         std::string(R"( text-anchor="middle")") + kGrey);
    const double middle = plots_top_ + PlotsHeight() / 2;
    Text(kPageMargin + 4, middle, 13.5, "bias",
         absl::StrFormat(R"svg( text-anchor="middle" fill="#5a6272" transform="rotate(-90 %.1f %.1f)")svg",
                         kPageMargin + 4, middle));
  }

  std::string Finish() const {
    const double width = kLeft + PlotsWidth() + kPageMargin, height = plots_top_ + PlotsHeight() + 44 + kPageMargin - 8;
    return absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
        "font-family=\"Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif\" fill=\"#20242c\">\n"
        "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
        width, height, width, height, Escaped(Title()), body_);
  }

  static constexpr const char* kGrey = R"( fill="#5a6272")";

  const Comparison& comparison_;
  const std::int64_t columns_;
  const PanelSize panel_;
  const double plots_top_;
  const OffsetAxis across_;
  const ValueSpan span_;
  std::string body_;
};

}  // namespace

std::string ComparisonSvg(const Comparison& comparison) { return Drawing(comparison).Draw(); }

}  // namespace attnd::bias
