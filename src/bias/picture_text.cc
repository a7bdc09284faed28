#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bias/picture.h"
#include "bias/picture_colour.h"
#include "bias/picture_scale.h"
#include "errors/shown.h"

namespace attnd::bias {
namespace {

// A title may come from a server and be printed on a terminal.
constexpr std::size_t kMaxTitleBytes = 1000;

constexpr char kMasked[] = "\u00b7";
constexpr std::size_t kLegendColumns = 100;  // of a legend if the terminal's width is unknown

// The look of cells by offset, and their largest width.
struct TextLook {
  std::function<Colour(std::int64_t)> colour;
  std::function<std::string(std::int64_t)> label;
  std::size_t width;
};

// Sets both colours, so that the terminal's own do not show.
std::string Painted(const std::string& text, Colour back, bool colour) {
  if (!colour) return text;
  const Colour ink = InkOn(back);
  return absl::StrFormat("\x1b[48;2;%d;%d;%dm\x1b[38;2;%d;%d;%dm%s\x1b[0m", back.red, back.green, back.blue, ink.red,
                         ink.green, ink.blue, text);
}

std::size_t Digits(std::int64_t first, std::int64_t count) {
  return std::max(absl::StrCat(first).size(), absl::StrCat(first + count - 1).size());
}

std::string Padded(const std::string& text, std::size_t width) { return absl::StrFormat("%*s", width, text); }

// The grid as rows of cells, with every `step`th query and key and their positions.
std::string Grid(const PictureWindow& window, const TextLook& look, const TextOptions& options) {
  const std::size_t row_name = Digits(window.query_start, window.queries) + 1;
  const std::size_t width = std::max(look.width, Digits(window.key_start, window.keys) + 1) + 1;
  std::int64_t step = 1;
  if (options.columns > 0) {
    const auto room = static_cast<std::int64_t>(options.columns) - static_cast<std::int64_t>(row_name) - 2;
    const auto fits = std::max<std::int64_t>(1, room / static_cast<std::int64_t>(width));
    step = std::max<std::int64_t>(1, (window.keys + fits - 1) / fits);
  }
  std::string text(row_name + 1, ' ');
  for (std::int64_t k = 0; k < window.keys; k += step) {
    absl::StrAppend(&text, Padded(absl::StrCat("k", window.key_start + k), width));
  }
  absl::StrAppend(&text, "\n");
  // Cells by offset, which determines what a cell looks like.
  std::map<std::int64_t, std::string> cells;
  const std::string masked = std::string(width - 1, ' ') + kMasked;
  for (std::int64_t q = 0; q < window.queries; q += step) {
    absl::StrAppend(&text, Padded(absl::StrCat("q", window.query_start + q), row_name), " ");
    for (std::int64_t k = 0; k < window.keys; k += step) {
      const std::int64_t offset = window.Offset(q, k);
      std::string& cell = cells[offset];
      if (cell.empty()) {
        cell = window.Masked(offset) ? masked
                                     : Painted(Padded(look.label(offset), width), look.colour(offset), options.colour);
      }
      absl::StrAppend(&text, cell);
    }
    absl::StrAppend(&text, "\n");
  }
  if (step > 1) absl::StrAppend(&text, "\n(one in ", step, " queries and keys, to fit the terminal)\n");
  return text;
}

std::string MaskedInWords(const PictureWindow& window) {
  return window.HasMasked() ? absl::StrCat(kMasked, ": masked, the key comes after the query\n") : "";
}

std::string Legend(const std::map<std::int32_t, BucketKey>& keys, const TextOptions& options) {
  const std::size_t room = options.columns > 0 ? static_cast<std::size_t>(options.columns) : kLegendColumns;
  std::string text;
  std::size_t used = 0;  // characters on the current line, without colours
  for (const auto& [bucket, key] : keys) {
    const std::string name = absl::StrCat("u", bucket), words = absl::StrCat(": ", InWords(key.offsets));
    const std::size_t length = name.size() + words.size();
    if (used > 0 && used + 3 + length > room) {
      absl::StrAppend(&text, "\n");
      used = 0;
    }
    if (used > 0) {
      absl::StrAppend(&text, "   ");
      used += 3;
    }
    absl::StrAppend(&text, Painted(name, key.colour, options.colour), words);
    used += length;
  }
  return used > 0 ? text + "\n" : text;
}

}  // namespace

std::string BucketGridText(const PictureWindow& window, const TextOptions& options) {
  const std::map<std::int32_t, BucketKey> keys = BucketKeys(window);
  const auto bucket = [&](std::int64_t offset) { return window.buckets[window.CellOf(offset)]; };
  const TextLook look{[&](std::int64_t offset) { return keys.at(bucket(offset)).colour; },
                      [&](std::int64_t offset) { return absl::StrCat("u", bucket(offset)); },
                      absl::StrCat("u", keys.empty() ? 0 : keys.rbegin()->first).size()};
  return absl::StrCat(errors::Shown(window.title, kMaxTitleBytes), ": buckets\n\n", Grid(window, look, options),
                      "\noffset = query position - key position",
                      KnowsRanges(window, keys) ? "" : "; of each bucket in this window:", "\n", Legend(keys, options),
                      MaskedInWords(window));
}

std::string HeatMapText(const PictureWindow& window, const TextOptions& options) {
  const ValueScale scale(window);
  const bool one = window.heads.size() == 1;
  std::string text =
      one ? absl::StrCat(errors::Shown(window.title, kMaxTitleBytes), ", head ", window.heads[0].head, ": bias\n")
          : absl::StrCat(errors::Shown(window.title, kMaxTitleBytes), ", ", window.heads.size(), " heads: bias\n");
  const auto value = [&](const HeadValues& head, std::int64_t offset) {
    return static_cast<double>(head.values[window.CellOf(offset)]);
  };
  std::size_t width = 1;
  for (const HeadValues& head : window.heads) {
    for (std::int64_t offset = window.FirstVisible(); offset <= window.GreatestOffset(); ++offset) {
      width = std::max(width, scale.Written(value(head, offset)).size());
    }
  }
  for (const HeadValues& head : window.heads) {
    absl::StrAppend(&text, "\n", one ? "" : absl::StrCat("head ", head.head, "\n"));
    absl::StrAppend(&text, Grid(window,
                                {[&](std::int64_t offset) { return scale.ColourOf(value(head, offset)); },
                                 [&](std::int64_t offset) { return scale.Written(value(head, offset)); }, width},
                                options));
  }
  absl::StrAppend(&text, "\nvalues from ", scale.Written(scale.least()), " to ", scale.Written(scale.greatest()), "\n",
                  MaskedInWords(window));
  return text;
}

}  // namespace attnd::bias
