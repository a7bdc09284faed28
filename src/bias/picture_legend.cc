#include "bias/picture_legend.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bias/drawing.h"
#include "bias/picture_colour.h"

namespace attnd::bias {
namespace {

// In pixels.
constexpr double kGap = 40;  // between the grid and its legend
constexpr double kRow = 24, kPatch = 18, kText = 13;
constexpr std::size_t kMostBuckets = 96;  // more are thinned out

constexpr absl::string_view kSansText = " class=\"s\"", kBoldText = " class=\"s\" font-weight=\"600\"";

struct Entry {
  std::string fill;  // of its patch; empty: none
  std::optional<Label> name;
  Label words;
  bool heading = false;

  double indent() const { return name.has_value() ? 66 : fill.empty() ? 0 : 27; }
};

std::vector<Entry> Entries(const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys) {
  std::vector<Entry> entries;
  const std::size_t step = (keys.size() + kMostBuckets - 1) / kMostBuckets;
  for (const bool after : {false, true}) {
    std::size_t rank = 0;
    for (const auto& [bucket, key] : keys) {
      if (key.after() != after) continue;
      if (rank == 0) {
        const bool second = after && !entries.empty();
        entries.push_back({"", std::nullopt,
                           Plain(second                      ? "keys after the query"
                                 : KnowsRanges(window, keys) ? "offsets"
                                                             : "offsets in this window"),
                           true});
      }
      if (rank++ % step != 0) continue;
      entries.push_back({Hex(key.colour), Indexed("u", bucket), Plain(Minus(InWords(key.offsets)))});
    }
  }
  if (step > 1) entries.push_back({"", std::nullopt, Plain(absl::StrCat("one in ", step, " buckets is shown"))});
  if (window.HasMasked()) entries.push_back({std::string(kHatching), std::nullopt, Plain("masked: later key")});
  return entries;
}

std::string Patch(absl::string_view fill) { return absl::StrCat("fill=\"", fill, "\" stroke=\"", kLine, "\""); }

}  // namespace

void BucketLegend(Canvas& canvas, const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys,
                  const Panel& panel) {
  const std::vector<Entry> entries = Entries(window, keys);
  double width = 0;
  for (const Entry& entry : entries) width = std::max(width, entry.indent() + kText * entry.words.ems);
  width += 16;
  const bool below = panel.width() > 3 * panel.height() && panel.width() > 2 * width;
  std::size_t rows = std::max<std::size_t>(8, static_cast<std::size_t>(panel.height() / kRow));
  if (below) {
    const auto columns = static_cast<std::size_t>(panel.width() / width);
    rows = (entries.size() + columns - 1) / columns;
  }
  const double left = below ? panel.left() : panel.right() + kGap;
  const double top = below ? std::max(panel.bottom() + 24, canvas.bottom() + 12) : panel.top();
  std::size_t place = 0;
  for (const Entry& entry : entries) {
    // If there are several columns, a heading starts a new one.
    if (entry.heading && entries.size() > rows) place = (place + rows - 1) / rows * rows;
    const std::size_t column = place / rows, row = place % rows;
    const double x = left + width * static_cast<double>(column);
    const double y = top + kRow * static_cast<double>(row);
    ++place;
    if (!entry.fill.empty()) canvas.Rect(x, y, kPatch, kPatch, Patch(entry.fill));
    if (entry.name.has_value()) canvas.Text(x + 27, y + 14, 16, *entry.name);
    canvas.Text(x + entry.indent(), y + 14, kText, entry.words, kGrey, "start", entry.heading ? kBoldText : kSansText);
  }
}

void ColourBar(Canvas& canvas, const PictureWindow& window, const ValueScale& scale, const Panel& panel) {
  const double x = panel.right() + kGap, top = panel.top();
  const double height = std::min(std::max(panel.height(), 160.0), 400.0), largest = scale.largest();
  constexpr int kShades = ValueScale::kShades, kCount = 2 * kShades + 1;
  for (int i = 0; i < kCount; ++i) {
    canvas.Rect(
        x, top + height * i / kCount, kPatch, height / kCount,
        absl::StrCat("fill=\"", Hex(ValueScale::ColourOfShade(kShades - i)), "\" shape-rendering=\"crispEdges\""));
  }
  canvas.Rect(x, top, kPatch, height, Patch("none"));
  std::vector<double> marks = {largest, 0, -largest};
  const double step = RoundStep(largest, 4);
  for (int i = 1; i <= static_cast<int>(largest / step); ++i) {
    if (height / 2 * (1 - i * step / largest) <= 16) continue;
    marks.push_back(i * step);
    marks.push_back(-i * step);
  }
  for (const double value : marks) {
    const double y = top + height * (1 - (value / largest * kShades / (kShades + 0.5) + 1) / 2);
    canvas.Add(absl::StrCat("<path stroke=\"", kLine, "\" d=\"M", Number(x + kPatch), " ", Number(y), "h5\"/>"));
    canvas.Text(x + 28, y + 4.5, kText, Plain(Minus(absl::StrFormat("%.3g", value))), kInk, "start", kSansText);
  }
  const double y = top + height + 24;
  const std::string said = absl::StrCat(scale.Written(scale.least()), " to ", scale.Written(scale.greatest()));
  canvas.Text(x, y, kText, Plain("in this window"), kGrey, "start", kBoldText);
  canvas.Text(x, y + 19, kText, Plain(Minus(said)), kGrey, "start", kSansText);
  if (!window.HasMasked()) return;
  canvas.Rect(x, y + 34, kPatch, kPatch, Patch(kHatching));
  canvas.Text(x + 27, y + 48, kText, Plain("masked"), kGrey, "start", kSansText);
}

}  // namespace attnd::bias
