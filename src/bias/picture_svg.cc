#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bias/drawing.h"
#include "bias/picture.h"
#include "bias/picture_axes.h"
#include "bias/picture_canvas.h"
#include "bias/picture_legend.h"
#include "bias/picture_panel.h"
#include "bias/picture_scale.h"

namespace attnd::bias {
namespace {

// In pixels.
constexpr double kPlot = 640, kGrownPlot = 1024;  // side lengths; the second if labels need it
constexpr double kPanelTop = 124;
constexpr double kSmallestText = 7;

double Left(const PictureWindow& window, const CellSize& size) {
  return kMargin + 16 + 12 + RoomForRows(window, size) + 9;
}

std::string InWords(const PictureWindow& window) {
  std::string words =
      absl::StrCat("Rows are queries ", window.query_start, " to ", window.query_start + window.queries - 1,
                   ", columns are keys ", window.key_start, " to ", window.key_start + window.keys - 1, ".");
  if (window.HasMasked()) absl::StrAppend(&words, " Cells whose key comes after the query are masked, and hatched.");
  return words;
}

// Names the axes beside all panels, from the upper left one to the lower right one.
void AxisNames(Canvas& canvas, const Panel& first, const Panel& last) {
  canvas.Text((first.left() + last.right()) / 2, kPanelTop - 32, 13, Plain("key position"), kGrey, "middle",
              " class=\"s\"");
  canvas.TurnedText(kMargin + 10, (first.top() + last.bottom()) / 2, 13, Plain("query position"), kGrey);
}

Panel OnePanel(Canvas& canvas, const PictureWindow& window, const Look& look) {
  const CellSize size = Fitted(window, look, kPlot, kGrownPlot);
  Panel panel(canvas, window, size, Left(window, size), kPanelTop);
  panel.Draw(look);
  panel.RowNames();
  panel.ColumnNames();
  AxisNames(canvas, panel, panel);
  return panel;
}

struct Arrangement {
  std::size_t columns;  // of panels
  double side;          // largest side of a panel
};

Arrangement Arranged(const PictureWindow& window, std::size_t count) {
  if (window.keys >= 4 * window.queries) return {1, kPlot};
  const double root = std::sqrt(static_cast<double>(count));
  auto columns = static_cast<std::size_t>(std::ceil(root));
  if (window.queries >= 4 * window.keys) {
    columns = std::min<std::size_t>(count, 8);
  } else {
    // Prefer full rows.
    for (std::size_t full = columns; full <= static_cast<std::size_t>(1.6 * root); ++full) {
      if (count % full != 0) continue;
      columns = full;
      break;
    }
  }
  return {columns, columns <= 4 ? 220.0 : columns <= 8 ? 150.0 : 100.0};
}

// Small multiples: one panel per head, with axes beside the outer panels. Returns the upper right panel.
Panel AllPanels(Canvas& canvas, const PictureWindow& window, const std::vector<Look>& looks) {
  const auto [columns, side] = Arranged(window, looks.size());
  CellSize size = Fitted(window, looks[0], side, side);
  for (const Look& look : looks) {
    const CellSize its = Fitted(window, look, side, side);
    if (its.label < size.label) size = its;
  }
  const double left = Left(window, size), top = kPanelTop + 24;
  const double across = size.width * static_cast<double>(window.keys) + 24;
  const double down = size.height * static_cast<double>(window.queries) + 34;
  const double names = ColumnAxis(window, size).size;
  std::vector<Panel> panels;
  for (std::size_t i = 0; i < looks.size(); ++i) {
    const std::size_t row = i / columns, column = i % columns;
    Panel& panel = panels.emplace_back(canvas, window, size, left + across * static_cast<double>(column),
                                       top + down * static_cast<double>(row));
    panel.Draw(looks[i]);
    if (column == 0) panel.RowNames();
    if (row == 0) panel.ColumnNames();
    canvas.Text(panel.left(), panel.top() - (row == 0 ? 17 + names : 8), 13,
                Plain(absl::StrCat("head ", window.heads[i].head)), kInk, "start", " class=\"s\" font-weight=\"600\"");
  }
  const Panel& upper_right = panels[columns - 1];
  AxisNames(canvas, panels[0], Panel(canvas, window, size, upper_right.left(), panels.back().top()));
  return upper_right;
}

}  // namespace

std::string BucketGridSvg(const PictureWindow& window) {
  const std::map<std::int32_t, BucketKey> keys = BucketKeys(window);
  const auto bucket = [&](std::int64_t offset) { return window.buckets[window.CellOf(offset)]; };
  const Look look{[&](std::int64_t offset) { return keys.at(bucket(offset)).colour; },
                  {{[&](std::int64_t offset) { return Indexed("u", bucket(offset)); }, kSmallestIndexed, 26, ""},
                   {[&](std::int64_t offset) { return Plain(absl::StrCat("u", bucket(offset))); }, kSmallestText,
                    kSmallestIndexed, " class=\"s\""}}};
  Canvas canvas;
  BucketLegend(canvas, window, keys, OnePanel(canvas, window, look));
  std::string said;
  for (const auto& [number, key] : keys) {
    absl::StrAppend(&said, said.empty() ? "" : "; ", "u", number, ": ", bias::InWords(key.offsets));
  }
  return canvas.Finish(
      absl::StrCat(window.title, ": buckets"), Minus("u: bucket of the offset, query position - key position"),
      absl::StrCat(InWords(window), " Offsets of each bucket: ", said.empty() ? "none is visible" : said, "."));
}

std::string HeatMapSvg(const PictureWindow& window) {
  const ValueScale scale(window);
  std::vector<Look> looks;
  for (const HeadValues& head : window.heads) {
    const auto value = [&window, &head](std::int64_t offset) {
      return static_cast<double>(head.values[window.CellOf(offset)]);
    };
    looks.push_back({[&scale, value](std::int64_t offset) { return scale.ColourOf(value(offset)); },
                     {{[&scale, value](std::int64_t offset) { return Plain(Minus(scale.Written(value(offset)))); },
                       kSmallestText, 18, " class=\"s\""}}});
  }
  Canvas canvas;
  ColourBar(canvas, window, scale,
            looks.size() == 1 ? OnePanel(canvas, window, looks[0]) : AllPanels(canvas, window, looks));
  const std::string of_heads =
      looks.size() == 1 ? absl::StrCat("head ", window.heads[0].head) : absl::StrCat(looks.size(), " heads");
  return canvas.Finish(absl::StrCat(window.title, ", ", of_heads, ": bias"),
                       Minus("added to each q\u00b7k at offset query position - key position"),
                       absl::StrCat(InWords(window), " Values from ", scale.Written(scale.least()), " to ",
                                    scale.Written(scale.greatest()), "."));
}

}  // namespace attnd::bias
