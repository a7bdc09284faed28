// An SVG document that is drawn upon, and grows with what is drawn.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::bias {

// Colours of all but the cells.
inline constexpr absl::string_view kInk = "#20242c", kGrey = "#555d6b", kLine = "#8a919e";
inline constexpr absl::string_view kHatching = "url(#attnd-masked)";  // of masked cells
inline constexpr double kMargin = 24;

// Text with markup, and how wide it is at most, in units of the font's size.
struct Label {
  std::string markup;
  double ems;
};

Label Plain(absl::string_view text);
// A letter with an index, as mathematics sets it.
Label Indexed(absl::string_view letter, std::int64_t index);
// q5 . k2
Label Product(std::int64_t query, std::int64_t key);

// A coordinate.
std::string Number(double value);

class Canvas {
 public:
  double bottom() const { return bottom_; }

  void Add(absl::string_view element);
  // The document covers this point.
  void Reach(double right, double bottom);

  void Rect(double x, double y, double width, double height, absl::string_view attributes);

  // `y` is the baseline's. `anchor` is start, middle or end; `more` holds further attributes, each with a space before
  // it.
  void Text(double x, double y, double size, const Label& label, absl::string_view fill = kInk,
            absl::string_view anchor = "start", absl::string_view more = "");

  // Reads upwards, with its middle at (x, y).
  void TurnedText(double x, double y, double size, const Label& label, absl::string_view fill);

  // The document, with its title at the top, where room has been left.
  std::string Finish(absl::string_view title, absl::string_view subtitle, absl::string_view description);

 private:
  std::string body_;
  double right_ = 0, bottom_ = 0;
};

}  // namespace attnd::bias
