#include "bias/picture_panel.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "bias/picture_axes.h"

namespace attnd::bias {
namespace {

// Side lengths of cells, in pixels.
constexpr double kLargestCell = 72;
constexpr double kRoomyCell = 24;           // up to this side, cells are square; a short axis may have larger ones
constexpr double kSmoothCell = 4;           // below it, edges between colours are straight lines, not staircases
constexpr double kGrowth = 64;              // step by which the grid grows until labels fit
constexpr std::int64_t kMostSeparate = 40;  // cells per side that get lines between them even without labels

CellSize Within(const PictureWindow& window, const Look& look, const std::vector<double>& ems, double side) {
  double width = std::min(kLargestCell, side / static_cast<double>(window.keys));
  double height = std::min(kLargestCell, side / static_cast<double>(window.queries));
  const double square = std::max(std::min(width, height), kRoomyCell);
  width = std::min(width, square);
  height = std::min(height, square);
  for (std::size_t i = 0; i < look.forms.size(); ++i) {
    const double label = std::min({look.forms[i].largest, 0.86 * width / ems[i], 0.5 * height});
    if (label >= look.forms[i].smallest) return {width, height, label, i};
  }
  return {width, height, 0, 0};
}

}  // namespace

CellSize Fitted(const PictureWindow& window, const Look& look, double plot, double grown) {
  std::vector<double> ems;
  for (const LabelForm& form : look.forms) {
    double widest = 0;
    for (std::int64_t offset = window.FirstVisible(); offset <= window.GreatestOffset(); ++offset) {
      widest = std::max(widest, form.label(offset).ems);
    }
    ems.push_back(widest == 0 ? 1 : widest);
  }
  for (int i = 0; plot + i * kGrowth <= grown; ++i) {
    const CellSize size = Within(window, look, ems, plot + i * kGrowth);
    if (size.label > 0) return size;
  }
  return Within(window, look, ems, plot);
}

double RoomForRows(const PictureWindow& window, const CellSize& size) {
  const GridAxis axis = RowAxis(window, size);
  double widest = 0;
  for (const Tick& tick : axis.ticks) widest = std::max(widest, tick.label.ems * axis.size);
  return widest;
}

Panel::Panel(Canvas& canvas, const PictureWindow& window, const CellSize& size, double left, double top)
    : canvas_(canvas),
      window_(window),
      size_(size),
      left_(left),
      top_(top),
      width_(size.width * static_cast<double>(window.keys)),
      height_(size.height * static_cast<double>(window.queries)) {}

void Panel::Draw(const Look& look) {
  if (window_.HasMasked()) canvas_.Rect(left_, top_, width_, height_, absl::StrCat("fill=\"", kHatching, "\""));
  if (size_.label > 0 || std::max(window_.queries, window_.keys) <= kMostSeparate) {
    Cells(look);
    Lines();
  } else {
    Bands(look);
  }
  canvas_.Rect(left_, top_, width_, height_, absl::StrCat("fill=\"none\" stroke=\"", kLine, "\""));
  if (size_.label > 0) Labels(look);
}

// Opens a group in which a cell is 1 by 1.
std::string Panel::Scaled() const {
  return absl::StrCat("<g transform=\"translate(", Number(left_), " ", Number(top_), ") scale(", Number(size_.width),
                      " ", Number(size_.height), ")\" shape-rendering=\"crispEdges\">");
}

// Draws runs of one colour along the rows, collected into one path per colour.
void Panel::Cells(const Look& look) {
  std::map<std::string, std::string> paths;
  for (std::int64_t q = 0; q < window_.queries; ++q) {
    for (std::int64_t k = 0; k < window_.keys;) {
      const std::int64_t start = k++;
      if (window_.Masked(window_.Offset(q, start))) continue;
      const Colour colour = look.colour(window_.Offset(q, start));
      while (k < window_.keys && !window_.Masked(window_.Offset(q, k)) && look.colour(window_.Offset(q, k)) == colour) {
        ++k;
      }
      absl::StrAppend(&paths[Hex(colour)], "M", start, " ", q, "h", k - start, "v1h", start - k, "z");
    }
  }
  canvas_.Add(Scaled());
  for (const auto& [colour, path] : paths) {
    canvas_.Add(absl::StrCat("<path fill=\"", colour, "\" d=\"", path, "\"/>"));
  }
  canvas_.Add("</g>");
}

// The lines between cells.
void Panel::Lines() {
  std::string lines;
  for (std::int64_t q = 1; q < window_.queries; ++q) {
    const double y = top_ + static_cast<double>(q) * size_.height;
    absl::StrAppend(&lines, "M", Number(left_), " ", Number(y), "h", Number(width_));
  }
  for (std::int64_t k = 1; k < window_.keys; ++k) {
    const double x = left_ + static_cast<double>(k) * size_.width;
    absl::StrAppend(&lines, "M", Number(x), " ", Number(top_), "v", Number(height_));
  }
  if (lines.empty()) return;
  const double width = std::min(2.5, 0.05 * std::min(size_.width, size_.height));
  canvas_.Add(absl::StrCat("<path stroke=\"#ffffff\" stroke-width=\"", Number(width), "\" d=\"", lines, "\"/>"));
}

// Each colour covers all cells from some offset on; the next one paints over the cells beyond it. So bands have no
// seams between them, however thin they are.
void Panel::Bands(const Look& look) {
  std::optional<Colour> last;
  canvas_.Add(Scaled());
  for (std::int64_t offset = window_.FirstVisible(); offset <= window_.GreatestOffset(); ++offset) {
    const Colour colour = look.colour(offset);
    if (colour != last) {
      canvas_.Add(absl::StrCat("<path fill=\"", Hex(colour), "\" d=\"", From(offset), "\"/>"));
    }
    last = colour;
  }
  canvas_.Add("</g>");
}

// The cells with this offset or a greater one: those left of an edge that runs down from the top.
std::string Panel::From(std::int64_t offset) const {
  // In row q the edge is at key q + first, clamped to the grid.
  const std::int64_t first = window_.Offset(0, 0) - offset + 1;
  if (std::min(size_.width, size_.height) >= kSmoothCell) {
    std::int64_t edge = std::clamp<std::int64_t>(first, 0, window_.keys), down = 1;
    std::string path = absl::StrCat("M0 0H", edge);
    for (std::int64_t q = 1; q < window_.queries; ++q, ++down) {
      const std::int64_t next = std::clamp<std::int64_t>(q + first, 0, window_.keys);
      if (next == edge) continue;
      absl::StrAppend(&path, "v", down, "h", next - edge);
      edge = next;
      down = 0;
    }
    return absl::StrCat(path, "v", down, "H0z");
  }
  // A straight line through the middles of the steps.
  const double x = static_cast<double>(first) - 0.5, queries = static_cast<double>(window_.queries),
               keys = static_cast<double>(window_.keys);
  std::string path = x < 0 ? absl::StrCat("M0 ", Number(-x)) : absl::StrCat("M0 0H", Number(std::min(x, keys)));
  if (x < keys) {
    const double reach = std::min(queries, keys - x);
    absl::StrAppend(&path, "L", Number(reach + x), " ", Number(reach));
  }
  return absl::StrCat(path, "V", window_.queries, "H0z");
}

void Panel::Labels(const Look& look) {
  const LabelForm& form = look.forms[size_.form];
  const Label last = Product(window_.query_start + window_.queries - 1, window_.key_start + window_.keys - 1);
  const double small = std::min(0.2 * size_.height, 0.9 * size_.width / last.ems);
  const bool products = small >= kSmallestIndexed;
  const double text = products ? std::min(size_.label, 0.36 * size_.height) : size_.label;
  for (const Colour ink : {kBlack, kWhite}) {
    std::string lines;
    for (std::int64_t q = 0; q < window_.queries; ++q) {
      for (std::int64_t k = 0; k < window_.keys; ++k) {
        const std::int64_t offset = window_.Offset(q, k);
        if (window_.Masked(offset) || InkOn(look.colour(offset)) != ink) continue;
        const double x = left_ + size_.width * (static_cast<double>(k) + 0.5);
        const double y = top_ + size_.height * (static_cast<double>(q) + 0.5);
        absl::StrAppend(&lines, "<text x=\"", Number(x), "\" y=\"", Number(y + (products ? 0.75 : 0.34) * text), "\">",
                        form.label(offset).markup, "</text>\n");
        if (!products) continue;
        absl::StrAppend(&lines, "<text x=\"", Number(x), "\" y=\"", Number(y - 0.17 * size_.height), "\" font-size=\"",
                        Number(small), "\" class=\"m\">",
                        Product(window_.query_start + q, window_.key_start + k).markup, "</text>\n");
      }
    }
    if (lines.empty()) continue;
    canvas_.Add(absl::StrCat("<g fill=\"", Hex(ink), "\" font-size=\"", Number(text), "\" text-anchor=\"middle\"",
                             form.more, ">\n", lines, "</g>"));
  }
}

void Panel::RowNames() {
  const GridAxis axis = RowAxis(window_, size_);
  for (const Tick& tick : axis.ticks) {
    const double y = top_ + size_.height * (static_cast<double>(tick.place) + 0.5);
    canvas_.Text(left_ - 9, y + 0.34 * axis.size, axis.size, tick.label, kInk, "end");
    if (axis.all) continue;
    canvas_.Add(absl::StrCat("<path stroke=\"", kLine, "\" d=\"M", Number(left_ - 5), " ", Number(y), "h5\"/>"));
  }
}

void Panel::ColumnNames() {
  const GridAxis axis = ColumnAxis(window_, size_);
  for (const Tick& tick : axis.ticks) {
    const double x = left_ + size_.width * (static_cast<double>(tick.place) + 0.5);
    canvas_.Text(x, top_ - 10, axis.size, tick.label, kInk, "middle");
    if (axis.all) continue;
    canvas_.Add(absl::StrCat("<path stroke=\"", kLine, "\" d=\"M", Number(x), " ", Number(top_ - 5), "v5\"/>"));
  }
}

}  // namespace attnd::bias
