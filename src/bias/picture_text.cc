#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bias/picture.h"
#include "bias/picture_colour.h"

namespace attnd::bias {
namespace {

std::string Painted(const std::string& text, Colour back, bool colour) {
  if (!colour) return text;
  const Colour ink = InkOn(back);
  return absl::StrFormat("\x1b[48;2;%d;%d;%dm\x1b[38;2;%d;%d;%dm%s\x1b[0m", back.red, back.green, back.blue, ink.red,
                         ink.green, ink.blue, text);
}

std::size_t Digits(std::int64_t first, std::int64_t count) {
  return std::max(absl::StrCat(first).size(), absl::StrCat(first + count - 1).size());
}

// Rows of cells, every `step`th query and key, with their positions beside them.
class Lines {
 public:
  Lines(const PictureWindow& window, const TextOptions& options, std::size_t label_width)
      : window_(window), options_(options), row_name_(Digits(window.query_start, window.queries) + 1) {
    cell_ = std::max(label_width, Digits(window.key_start, window.keys) + 1) + 1;
    if (options.columns <= 0) return;
    const auto room = static_cast<std::int64_t>(options.columns) - static_cast<std::int64_t>(row_name_) - 2;
    const auto fits = std::max<std::int64_t>(1, room / static_cast<std::int64_t>(cell_));
    step_ = std::max<std::int64_t>(1, (window.keys + fits - 1) / fits);
  }

  std::string Draw(const std::function<Colour(std::size_t)>& colour,
                   const std::function<std::string(std::size_t)>& label) const {
    std::string text = absl::StrCat(window_.title, "\n\n", std::string(row_name_ + 1, ' '));
    for (std::int64_t k = 0; k < window_.keys; k += step_) {
      absl::StrAppendFormat(&text, "%*s", cell_, absl::StrCat("k", window_.key_start + k));
    }
    absl::StrAppend(&text, "\n");
    for (std::int64_t q = 0; q < window_.queries; q += step_) {
      absl::StrAppendFormat(&text, "%*s ", row_name_, absl::StrCat("q", window_.query_start + q));
      std::string row, blank;  // blanks only before another cell, so that no line ends in them
      for (std::int64_t k = 0; k < window_.keys; k += step_) {
        const std::size_t cell = window_.Index(q, k);
        if (window_.Masked(cell)) {
          blank.append(cell_, ' ');
          continue;
        }
        absl::StrAppend(&row, blank,
                        Painted(absl::StrFormat("%*s", cell_, label(cell)), colour(cell), options_.colour));
        blank.clear();
      }
      absl::StrAppend(&text, row, "\n");
    }
    if (step_ > 1) absl::StrAppend(&text, "\n(every ", step_, "th query and key, to fit the terminal)\n");
    return text;
  }

 private:
  const PictureWindow& window_;
  const TextOptions& options_;
  std::size_t row_name_;
  std::size_t cell_;
  std::int64_t step_ = 1;
};

}  // namespace

std::string BucketGridText(const PictureWindow& window, const TextOptions& options) {
  const std::map<std::int32_t, BucketKey> keys = BucketKeys(window);
  const std::int32_t highest = keys.empty() ? 0 : keys.rbegin()->first;
  return Lines(window, options, absl::StrCat("u", highest).size())
      .Draw([&](std::size_t cell) { return keys.at(window.buckets[cell]).colour; },
            [&](std::size_t cell) { return absl::StrCat("u", window.buckets[cell]); });
}

std::string HeatMapText(const PictureWindow& window, const TextOptions& options) {
  const double largest = LargestValue(window);
  const auto number = [&](std::size_t cell) { return absl::StrFormat("%.2f", window.values[cell]); };
  std::size_t width = 0;
  for (std::size_t cell = 0; cell < window.values.size(); ++cell) width = std::max(width, number(cell).size());
  return Lines(window, options, width)
      .Draw([&](std::size_t cell) { return Diverging(static_cast<double>(window.values[cell]) / largest); }, number);
}

}  // namespace attnd::bias
