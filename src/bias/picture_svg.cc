#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "bias/picture.h"
#include "bias/picture_colour.h"

namespace attnd::bias {
namespace {

// Sizes in pixels.
constexpr double kLeft = 92, kTop = 132, kMargin = 32, kGap = 44, kLegendWidth = 190;
constexpr double kLargestPlot = 640, kLargestCell = 72;
// The most cells a side with a label in each; with the product beside it; with every row and column named.
constexpr std::int64_t kMostLabels = 20, kMostProducts = 8, kMostNames = 20;
constexpr std::int64_t kMostSeparate = 40;  // with a gap between cells

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// A letter with an index, as mathematics sets it. The index is lowered by dy, which every viewer knows; what follows in
// the same line must be raised again, which `Raised` does.
std::string Indexed(const char* letter, std::int64_t index) {
  return absl::StrFormat(R"(<tspan font-style="italic">%s</tspan><tspan dy="0.28em" font-size="68%%">%d</tspan>)",
                         letter, index);
}
std::string Raised(const std::string& text) { return absl::StrCat("<tspan dy=\"-0.19em\">", text, "</tspan>"); }

// One picture: cells on the left, a legend on the right.
class Drawing {
 public:
  explicit Drawing(const PictureWindow& window)
      : window_(window),
        longest_(std::max(window.queries, window.keys)),
        cell_(std::min(kLargestCell, kLargestPlot / static_cast<double>(longest_))),
        width_(cell_ * static_cast<double>(window.keys)),
        height_(cell_ * static_cast<double>(window.queries)) {}

  double legend_left() const { return kLeft + width_ + kGap; }
  double plot_height() const { return height_; }
  std::int64_t longest() const { return longest_; }
  double cell() const { return cell_; }

  void Add(const std::string& element) { absl::StrAppend(&body_, element, "\n"); }

  void Text(double x, double y, double size, const std::string& content, const char* attributes = "") {
    Add(absl::StrFormat(R"(<text x="%.4g" y="%.4g" font-size="%.3g" %s>%s</text>)", x, y, size, attributes, content));
  }

  // Every cell that `colour_of` gives a colour, as runs along rows, gathered by colour.
  void Cells(const std::function<std::optional<Colour>(std::size_t)>& colour_of) {
    std::map<std::string, std::string> paths;
    for (std::int64_t q = 0; q < window_.queries; ++q) {
      for (std::int64_t k = 0; k < window_.keys;) {
        const std::optional<Colour> colour = colour_of(window_.Index(q, k));
        std::int64_t end = k + 1;
        const bool merge = longest_ > kMostSeparate;
        while (merge && end < window_.keys && colour_of(window_.Index(q, end)) == colour) ++end;
        if (colour.has_value()) absl::StrAppendFormat(&paths[Hex(*colour)], "M%d %dh%dv1h-%dz", k, q, end - k, end - k);
        k = end;
      }
    }
    // One unit is one cell. A stroke in the background's colour parts the cells of a small picture.
    const std::string gap = longest_ > kMostSeparate
                                ? R"( shape-rendering="crispEdges")"
                                : absl::StrFormat(R"( stroke="#ffffff" stroke-width="%.3g")", 2.5 / cell_);
    Add(absl::StrFormat(R"svg(<g transform="translate(%g %g) scale(%.6g)"%s>)svg", kLeft, kTop, cell_, gap));
    for (const auto& [colour, path] : paths) Add(absl::StrFormat(R"(<path fill="%s" d="%s"/>)", colour, path));
    Add("</g>");
    Add(absl::StrFormat(
        R"(<rect x="%g" y="%g" width="%.6g" height="%.6g" fill="none" stroke="#c8ccd4" stroke-width="1"/>)", kLeft,
        kTop, width_, height_));
  }

  // A label in each unmasked cell, if there is room.
  void Labels(const std::function<Colour(std::size_t)>& colour_of, const std::function<std::string(std::size_t)>& text,
              double size) {
    if (longest_ > kMostLabels) return;
    const bool products = longest_ <= kMostProducts;
    for (std::int64_t q = 0; q < window_.queries; ++q) {
      for (std::int64_t k = 0; k < window_.keys; ++k) {
        const std::size_t cell = window_.Index(q, k);
        if (window_.Masked(cell)) continue;
        const double x = kLeft + cell_ * (static_cast<double>(k) + 0.5);
        const double y = kTop + cell_ * (static_cast<double>(q) + 0.5);
        const std::string ink = absl::StrFormat(R"(text-anchor="middle" fill="%s")", Hex(InkOn(colour_of(cell))));
        Text(x, y + size * cell_ * (products ? 0.75 : 0.33), size * cell_, text(cell), ink.c_str());
        if (!products) continue;
        const std::string product =
            Indexed("q", window_.query_start + q) + Raised("\u00b7" + Indexed("k", window_.key_start + k));
        Text(x, y - 0.17 * cell_, 0.2 * cell_, product, (ink + " opacity=\"0.85\"").c_str());
      }
    }
  }

  void Heading(const std::string& subtitle) {
    Text(kMargin, 42, 22, Escaped(window_.title), R"(class="s" font-weight="600")");
    Text(kMargin, 67, 14.5, subtitle, R"(class="s" fill="#5a6272")");
  }

  void Axes() {
    const bool names = longest_ <= kMostNames;
    const double size = names ? std::clamp(0.3 * cell_, 11.0, 19.0) : 12;
    for (std::int64_t q = 0; q < window_.queries; q += Step()) {
      const double y = kTop + cell_ * (static_cast<double>(q) + 0.5) + size * 0.3;
      Text(kLeft - 10, y, size, Name(names, "q", window_.query_start + q), R"(text-anchor="end")");
    }
    for (std::int64_t k = 0; k < window_.keys; k += Step()) {
      const double x = kLeft + cell_ * (static_cast<double>(k) + 0.5);
      Text(x, kTop - 12, size, Name(names, "k", window_.key_start + k), R"(text-anchor="middle")");
    }
    Text(kLeft + width_ / 2, kTop - 40, 13, "key position", R"(class="s" text-anchor="middle" fill="#5a6272")");
    const double middle = kTop + height_ / 2;
    Text(kLeft - 62, middle, 13, "query position",
         absl::StrFormat(R"svg(class="s" text-anchor="middle" fill="#5a6272" transform="rotate(-90 %g %.6g)")svg",
                         kLeft - 62, middle)
             .c_str());
  }

  std::string Finish(double legend_width, double legend_height) {
    const double width = legend_left() + legend_width + kMargin;
    const double height = kTop + std::max(height_, legend_height) + kMargin;
    return absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
        "font-family=\"'STIX Two Text','Latin Modern Roman',Cambria,Georgia,'DejaVu Serif',serif\" fill=\"#20242c\">\n"
        "<style>.s{font-family:Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif}</style>\n"
        "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
        width, height, width, height, Escaped(window_.title), body_);
  }

 private:
  std::string Name(bool with_letter, const char* letter, std::int64_t position) const {
    return with_letter ? Indexed(letter, position) : absl::StrCat(position);
  }

  // Of the axes' labels: at most some ten a side, at round positions.
  std::int64_t Step() const {
    if (longest_ <= kMostNames) return 1;
    std::int64_t step = 1;
    for (std::int64_t next = 2; longest_ / step > 10; next *= 2) step = next;
    return step;
  }

  const PictureWindow& window_;
  const std::int64_t longest_;
  const double cell_, width_, height_;
  std::string body_;
};

std::string OffsetsOf(const BucketKey& key) {
  const auto shown = [](std::int64_t offset) { return absl::StrReplaceAll(absl::StrCat(offset), {{"-", "\u2212"}}); };
  if (key.nearest == key.farthest) return absl::StrCat("offset ", shown(key.nearest));
  return absl::StrCat("offsets ", shown(key.nearest), " to ", shown(key.farthest));
}

// A round number near a third of the range, for the colour bar's marks.
double RoundStep(double largest) {
  const double power = std::pow(10, std::floor(std::log10(largest)));
  for (const double factor : {0.2, 0.5, 1.0, 2.0}) {
    if (largest / (power * factor) <= 4) return power * factor;
  }
  return power * 5;
}

void ColourBar(Drawing& drawing, double largest) {
  const double x = drawing.legend_left(), height = std::max(drawing.plot_height(), 160.0);
  drawing.Add(R"(<defs><linearGradient id="bar" x1="0" y1="1" x2="0" y2="0">)");
  for (int i = 0; i <= 10; ++i) {
    drawing.Add(absl::StrFormat(R"(<stop offset="%d%%" stop-color="%s"/>)", i * 10, Hex(Diverging(i / 5.0 - 1))));
  }
  drawing.Add("</linearGradient></defs>");
  drawing.Add(absl::StrFormat(
      R"svg(<rect x="%.6g" y="%g" width="20" height="%.6g" fill="url(#bar)" stroke="#c8ccd4" stroke-width="1"/>)svg", x,
      kTop, height));
  const double step = RoundStep(largest);
  const int marks = static_cast<int>(std::floor(largest * 1.0001 / step));
  for (int i = -marks; i <= marks; ++i) {
    const double value = i * step;
    const double y = kTop + height * (1 - (value / largest + 1) / 2);
    drawing.Add(absl::StrFormat(R"(<path d="M%.6g %.6gh5" stroke="#5a6272"/>)", x + 20, y));
    drawing.Text(x + 30, y + 4.5, 13, absl::StrReplaceAll(absl::StrFormat("%g", value), {{"-", "\u2212"}}),
                 R"(class="s")");
  }
}

}  // namespace

std::string BucketGridSvg(const PictureWindow& window) {
  const std::map<std::int32_t, BucketKey> keys = BucketKeys(window);
  const auto colour = [&](std::size_t cell) { return keys.at(window.buckets[cell]).colour; };
  Drawing drawing(window);
  drawing.Heading(
      "each product <tspan font-style=\"italic\">q\u00b7k</tspan> is given <tspan "
      "font-style=\"italic\">u</tspan> of the bucket of its offset, query position \u2212 key position");
  drawing.Cells(
      [&](std::size_t cell) { return window.Masked(cell) ? std::nullopt : std::optional<Colour>(colour(cell)); });
  const double size = drawing.longest() <= kMostProducts ? 0.36 : 0.46;
  drawing.Labels(
      colour, [&](std::size_t cell) { return Indexed("u", window.buckets[cell]); }, size);
  drawing.Axes();

  // The legend: columns as tall as the plot.
  constexpr double kRow = 30;
  const auto rows = static_cast<std::size_t>(std::max(4.0, std::floor(drawing.plot_height() / kRow)));
  std::size_t entry = 0;
  for (const auto& [bucket, key] : keys) {
    const std::size_t column = entry / rows;
    const double x = drawing.legend_left() + kLegendWidth * static_cast<double>(column);
    const double y = kTop + kRow * static_cast<double>(entry % rows);
    drawing.Add(
        absl::StrFormat(R"(<rect x="%.6g" y="%.6g" width="22" height="22" rx="4" fill="%s"/>)", x, y, Hex(key.colour)));
    drawing.Text(x + 32, y + 16, 18, Indexed("u", bucket));
    drawing.Text(x + 66, y + 16, 13.5, OffsetsOf(key), R"(class="s" fill="#5a6272")");
    ++entry;
  }
  const std::size_t columns = (entry + rows - 1) / rows;
  return drawing.Finish(kLegendWidth * static_cast<double>(columns), kRow * static_cast<double>(std::min(entry, rows)));
}

std::string HeatMapSvg(const PictureWindow& window) {
  const double largest = LargestValue(window);
  // Few enough shades that long diagonals of nearly equal values merge, and enough that the eye sees no steps.
  constexpr double kShades = 64;
  const auto colour = [&](std::size_t cell) {
    return Diverging(std::round(static_cast<double>(window.values[cell]) / largest * kShades) / kShades);
  };
  Drawing drawing(window);
  drawing.Heading(absl::StrFormat("bias of head %d, added to each logit", window.head));
  drawing.Cells(
      [&](std::size_t cell) { return window.Masked(cell) ? std::nullopt : std::optional<Colour>(colour(cell)); });
  const auto number = [&](std::size_t cell) {
    return absl::StrReplaceAll(absl::StrFormat("%.2f", window.values[cell]), {{"-", "\u2212"}});
  };
  drawing.Labels(colour, number, drawing.longest() <= kMostProducts ? 0.25 : 0.26);
  drawing.Axes();
  ColourBar(drawing, largest);
  return drawing.Finish(90, 160);
}

}  // namespace attnd::bias
